# SPDX-License-Identifier: Apache-2.0
"""Elements that set one thing.

Does:  what tables do not show: refreshes, closes, and what is left.
Place: client_info, client_url, passthrough, set_extra_context, trim_path.
State: none.
"""

from __future__ import annotations

import pytest

from nsm_sdk.api import Connection, PathSegment, Request
from nsm_sdk.core import Bound, Call, Dial, Element, Next
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.connect import ClientUrl, Connect
from nsm_sdk.elements.labels import ClientInfo, SetExtraContext
from nsm_sdk.elements.passthrough import Passthrough
from nsm_sdk.elements.update_path import TrimPath
from nsm_sdk.errors import Unavailable
from nsm_sdk.testing import FailTimes, Probe, drive, rig, sample_request


class Name(Element):
    """Answers as an endpoint behind would."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        conn.network_service_endpoint_name = "behind"
        return conn


def dial(answer: Connection) -> Dial:
    """A next hop that answers a copy of `answer`."""

    async def request(call: Call, request: Request) -> Connection:
        copy = Connection()
        copy.CopyFrom(answer)
        return copy

    async def close(call: Call, conn: Connection) -> None:
        return None

    return lambda url: Bound(connection=Next(request, close))


def stale(index: int = 0) -> Request:
    asked = sample_request()
    asked.connection.path.path_segments.extend(PathSegment(name=name, id=name) for name in ("old-1", "old-2"))
    asked.connection.path.index = index
    return asked


def test_the_environment_is_not_kept() -> None:
    shown = repr(ClientInfo({"NODE_NAME": "n", "PASSWORD": "hunter2"}))
    assert "nodeName" in shown
    assert "hunter2" not in shown


async def test_an_endpoint_cuts_stale_segments_off_and_shows_them_below() -> None:
    driven = await drive(Begin(), TrimPath(), request=stale(index=1))
    assert driven.connection is not None
    assert [hop.name for hop in driven.connection.path.path_segments] == ["nsc-1", "old-1"]
    assert len(driven.seen.calls[0].connection.path.path_segments) == 3


async def test_a_hop_that_goes_on_keeps_the_path() -> None:
    far = stale().connection
    driven = await drive(Begin(), TrimPath(), ClientUrl("inproc://next"), Connect(dial(far)), request=stale())
    assert driven.connection is not None
    assert len(driven.connection.path.path_segments) == 3
    assert not driven.left


async def test_a_fixed_url_is_there_for_requests_and_closes() -> None:
    probe = Probe()
    await drive(ClientUrl("tcp://a:1"), probe, url="tcp://b:2")
    assert [passed.url for passed in probe.seen.calls] == ["tcp://a:1", "tcp://a:1"]


async def test_a_passthrough_asks_for_the_same_endpoint_again_and_forgets_it_at_the_close() -> None:
    probe = Probe()
    asked = sample_request(labels={"x": "y"})
    asked.connection.network_service_endpoint_name = "this"
    async with rig(Begin(), Passthrough({"app": "fw"}), probe, Name()) as bench:
        for _ in range(2):
            conn = await bench.request(asked)
            assert conn.network_service_endpoint_name == "this"
            assert dict(conn.labels) == {"x": "y"}
        await bench.close()
        assert not await bench.left()
        await bench.request(asked)
        await bench.close()
    names = [passed.connection.network_service_endpoint_name for passed in probe.seen.calls]
    assert names == ["", "behind", "behind", "", "behind"]
    assert {passed.connection.labels["app"] for passed in probe.seen.calls} == {"fw"}


async def test_a_passthrough_whose_first_request_fails_leaves_nothing() -> None:
    async with rig(Begin(), Passthrough(), FailTimes(1, Unavailable("x"))) as bench:
        with pytest.raises(Unavailable):
            await bench.request()
        assert not await bench.left()


async def test_extra_context_is_set_again_on_each_request() -> None:
    pairs = {"a": "1"}
    element = SetExtraContext(pairs)
    pairs["a"] = "changed by the owner"
    driven = await drive(element, requests=2)
    assert driven.connection is not None
    assert dict(driven.connection.context.extra_context) == {"a": "1"}
