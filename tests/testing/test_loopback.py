# SPDX-License-Identifier: Apache-2.0
"""Two hops joined in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Bound, Call, Chain, Element, Next
from nsm_sdk.elements import Begin, UpdatePath
from nsm_sdk.errors import DeadlineExceeded, Exhausted
from nsm_sdk.testing import FailTimes, Park, Probe, loopback, sample_request, virtual_time


class Keeps(Element):
    """Keeps the live message, as no element should."""

    kept: Connection

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.kept = request.connection
        return await next.request(call, request)


@virtual_time
async def test_a_request_crosses_and_comes_back() -> None:
    near, far = Probe(), Probe()
    server = Chain("server", UpdatePath("server", opens=False), Begin(), far)
    async with loopback(server, Chain("client", UpdatePath("nsc-1"), Begin(), near)) as link:
        answer = await link.client.request()
        assert [segment.name for segment in answer.path.path_segments] == ["nsc-1", "server"]
        await link.client.close()
        assert far.seen.verbs == ["request", "close"]
        assert near.seen.verbs == ["request", "close"]
        assert not await link.client.left()


@virtual_time
async def test_messages_are_not_shared_between_hops() -> None:
    keeps = Keeps()
    async with loopback(keeps) as link:
        answer = await link.client.request()
        keeps.kept.network_service = "changed later"
        assert answer.network_service == "service-1"
        assert link.client.last == sample_request().connection


@virtual_time
async def test_errors_cross_with_hop_and_element() -> None:
    async with loopback(FailTimes(1, Exhausted("no addresses"))) as link:
        with pytest.raises(Exhausted, match="no addresses") as caught:
            await link.client.request()
    assert "server" in str(caught.value.trail) + caught.value.hop


@virtual_time
async def test_a_deadline_reaches_the_far_hop() -> None:
    park = Park()
    async with loopback(park) as link:
        with pytest.raises(DeadlineExceeded):
            await link.client.request(timeout=10.0)
        assert park.seen.calls[0].deadline < 10.0
        assert park.parked == 0


@virtual_time
async def test_the_far_side_can_be_dialled_as_a_whole() -> None:
    async with loopback(Probe()) as link:
        peer = link.peer()
        assert isinstance(peer, Bound)
        assert peer.connection is not None


async def test_the_same_over_a_socket(tmp_path: Path) -> None:
    far = Probe()
    async with loopback(far, url=f"unix://{tmp_path}/server.sock") as link:
        assert await link.client.request() == sample_request().connection
        await link.client.close()
    assert far.seen.verbs == ["request", "close"]
