# SPDX-License-Identifier: Apache-2.0
"""Two endpoints of one name: the newer one has it, the other says so, and gets it back when the newer one has gone."""

from __future__ import annotations

import asyncio
import logging

import pytest

from nsm_sdk import chains
from nsm_sdk.api import NetworkServiceEndpoint
from nsm_sdk.core import Query, Role, Running
from nsm_sdk.lab import MEMORY, Cluster
from nsm_sdk.testing import current_clock, virtual_time

LIFE = 10.0
FIRST, SECOND = "tcp://10.0.0.1:5001", "tcp://10.0.0.2:5001"


async def register(running: Running, url: str) -> None:
    assert running.bound.nse is not None
    entry = NetworkServiceEndpoint(name="nse", url=url, network_service_names=["s"])
    await running.bound.nse.register(running.call(timeout=5), entry)


async def seen(running: Running) -> list[str]:
    assert running.bound.nse is not None
    query = Query(NetworkServiceEndpoint(name="nse"))
    return [found.entry.url async for found in running.bound.nse.find(running.call(timeout=5), query)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


@virtual_time
@pytest.mark.parametrize("nodes", [1, 2])
async def test_the_newer_one_keeps_the_name_and_both_say_so(nodes: int, caplog: pytest.LogCaptureFixture) -> None:
    async with Cluster(MEMORY, registration_life=LIFE) as cluster:
        where = [await cluster.node(f"node-{number}") for number in range(nodes)]

        def registrant(name: str, at: int) -> Role:
            tokens, dial = cluster.identity("nse", name)
            return chains.registrant(name, manager=where[at].manager.url, dial=dial, services=[tokens, dial])

        async with registrant("first", 0).serving(clock=current_clock()) as first:
            await register(first, FIRST)
            await asyncio.sleep(3 * LIFE)
            assert await seen(first) == [FIRST]
            assert warnings(caplog) == []
            async with registrant("second", nodes - 1).serving(clock=current_clock()) as second:
                await register(second, SECOND)
                # The refreshes of the first do not take the name back.
                await asyncio.sleep(3 * LIFE)
                assert await seen(second) == [SECOND]
                said = warnings(caplog)
                assert len(said) == 2
                # Where one manager has both, it tells the registry their own addresses.
                names = (FIRST, SECOND) if nodes == 1 else tuple(at.manager.url for at in where)
                assert any(text.startswith("registry: ") and all(one in text for one in names) for text in said)
                assert any(text.startswith("first: ") and "'nse'" in text and "NSM_NAME" in text for text in said)
            # Nobody refreshes the second any more: the first gets its name back.
            await asyncio.sleep(3 * LIFE)
            assert await seen(first) == [FIRST]


@virtual_time
async def test_one_that_lost_the_name_does_not_unregister_it() -> None:
    async with Cluster(MEMORY, registration_life=LIFE) as cluster:
        node = await cluster.node("node-1")
        tokens, dial = cluster.identity("nse", "first")
        others, far = cluster.identity("nse", "second")
        one = chains.registrant("first", manager=node.manager.url, dial=dial, services=[tokens, dial])
        two = chains.registrant("second", manager=node.manager.url, dial=far, services=[others, far])
        async with one.serving(clock=current_clock()) as first, two.serving(clock=current_clock()) as second:
            await register(first, FIRST)
            await asyncio.sleep(1)
            await register(second, SECOND)
            await asyncio.sleep(1)
            assert first.bound.nse is not None
            await first.bound.nse.unregister(first.call(timeout=5), NetworkServiceEndpoint(name="nse"))
            assert await seen(second) == [SECOND]
