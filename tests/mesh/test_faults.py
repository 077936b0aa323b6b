# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong wherever, nothing is left.

Does:  one fault at the n-th point of a request, a refresh or a close, for every n and every hop: an element fails, an
       answer is lost, the caller goes away, the caller's task is cancelled, a hop crashes. Then everything is closed,
       and the mesh holds what it held before.
Place: whole meshes in one process, in virtual time, with interfaces of a kernel in memory.
State: a cluster for each fault.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from nsm_sdk.api import Connection
from nsm_sdk.elements import Begin
from nsm_sdk.errors import NsmError
from nsm_sdk.lab import MEMORY, Cluster, Counts, LabClient
from nsm_sdk.testing import Fault, Faults, explore, fault_points, run_virtual, settled
from tests.mesh.modes import PASSING, URL

LIFE = 60.0
"""Seconds that tokens live here."""
HOPS = 4
DESCRIPTORS = ("descriptors", "timers")


class Mesh:
    """A cluster, its client, and what it holds when nothing is connected."""

    def __init__(self, cluster: Cluster, nsc: LabClient, idle: Counts) -> None:
        self.cluster = cluster
        self.nsc = nsc
        self.idle = idle

    @classmethod
    async def build(cls, cluster: Cluster) -> Mesh:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        await nsc.close(await nsc.request(URL))
        await settled()
        return cls(cluster, nsc, await cluster.counts())

    async def nothing_left(self, *apart: str) -> None:
        await settled()
        left = (await self.cluster.counts()).new_since(self.idle, apart=(*DESCRIPTORS, *apart))
        assert not left, "; ".join(left)

    async def give_up(self, id: str) -> None:
        """What an application does that has no answer: it closes what it asked for.

        Only where the answer was lost between the client's own Begin and the application, so that the connection
        stands; else it is the hops' business to undo what they did.
        """
        await settled()
        if (await self.cluster.counts()).of("connections") == HOPS and id in self.nsc.served.find(Begin).ids():
            await self.nsc.close(Connection(id=id))

    async def works(self) -> None:
        """A new connection can be had, with the first addresses."""
        conn = await self.nsc.request(URL)
        assert list(conn.context.ip_context.src_ip_addrs) == ["172.16.0.1/32"]
        assert (await self.nsc.ping(conn)).ok
        await self.nsc.close(conn)
        await self.nothing_left()


def cluster_of(faults: Faults, **options: Any) -> Cluster:
    return Cluster(MEMORY, observe=faults, token_life=LIFE, **options)


async def a_first_request(faults: Faults) -> None:
    async with cluster_of(faults) as cluster:
        mesh = await Mesh.build(cluster)
        ended = await faults.run(mesh.nsc.request(URL, id="mine"))
        if ended.answer is not None:
            assert (await mesh.nsc.ping(ended.answer)).ok
            await mesh.nsc.close(ended.answer)
        else:
            await mesh.give_up("mine")
        # Undoing takes no time unless the undoing itself was what failed; that is repeated.
        await asyncio.sleep(5)
        await mesh.nothing_left()
        await mesh.works()


async def a_refresh(faults: Faults) -> None:
    async with cluster_of(faults) as cluster:
        mesh = await Mesh.build(cluster)
        conn = await mesh.nsc.request(URL)
        await faults.run(mesh.nsc.refresh(conn))
        await settled()
        # A refresh that fails undoes nothing.
        assert (await mesh.nsc.ping(conn)).ok
        conn = await mesh.nsc.refresh(conn)
        assert (await mesh.nsc.ping(conn)).ok
        await mesh.nsc.close(conn)
        await asyncio.sleep(5)
        await mesh.nothing_left()
        await mesh.works()


async def a_close(faults: Faults) -> None:
    async with cluster_of(faults) as cluster:
        mesh = await Mesh.build(cluster)
        conn = await mesh.nsc.request(URL)
        ended = await faults.run(mesh.nsc.close(conn))
        if ended.error is not None and faults.struck.endswith(("UpdatePath.close", "Begin.close")):
            # It failed before it had begun: nothing has been closed, and the caller knows.
            await mesh.nsc.close(conn)
        await asyncio.sleep(5)
        await mesh.nothing_left()
        await mesh.nsc.close(conn)
        await mesh.works()


async def a_failed_request_that_is_repeated(faults: Faults) -> None:
    """As a client does that tries until it succeeds: with the same id, at once."""
    async with cluster_of(faults) as cluster:
        mesh = await Mesh.build(cluster)
        ended = await faults.run(mesh.nsc.request(URL, id="same"))
        conn: Connection | None = ended.answer
        for _ in range(5):
            if conn is not None:
                break
            with contextlib.suppress(NsmError):
                conn = await mesh.nsc.request(URL, id="same")
        assert conn is not None
        assert (await mesh.nsc.ping(conn)).ok
        held = await cluster.counts()
        assert held.of("connections") == 4
        assert held.of("addresses") == 2
        await mesh.nsc.close(conn)
        await asyncio.sleep(5)
        await mesh.nothing_left()


SCENARIOS: list[Callable[[Faults], object]] = [a_first_request, a_refresh, a_close, a_failed_request_that_is_repeated]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("kind", [Fault.FAIL, Fault.LOSE, Fault.CANCEL, Fault.ABORT], ids=str)
def test_nothing_is_left(scenario: Callable[[Faults], object], kind: Fault) -> None:
    runs = explore(scenario, kinds=[kind])  # type: ignore[arg-type]
    assert len(runs) > 10
    assert all(run.struck for run in runs)


@pytest.mark.parametrize("hop", ["nsmgr-node-1", "forwarder-node-1", "nse-1"])
def test_a_hop_crashes_at_any_moment_of_a_request(hop: str) -> None:
    """It comes back at once; what cannot be told to it ends with the tokens."""

    async def scenario(faults: Faults) -> None:
        async with cluster_of(faults, orphan_timeout=LIFE) as cluster:
            mesh = await Mesh.build(cluster)
            crashed = cluster.hops[hop]
            faults.act = lambda: [one.kill() for one in crashed.served]  # type: ignore[attr-defined]
            ended = await faults.run(mesh.nsc.request(URL))
            if faults.struck:
                await crashed.kill()
                await crashed.start()
                await crashed.registered()  # type: ignore[attr-defined]
            if ended.answer is not None:
                await mesh.nsc.close(ended.answer)
            await asyncio.sleep(2 * LIFE)
            await mesh.nothing_left(*PASSING)

    counting = Faults(Fault.ACT)
    run_virtual(scenario, counting)
    assert counting.points > 10
    for faults in fault_points(scenario, kinds=[Fault.ACT]):
        try:
            run_virtual(scenario, faults)
        except BaseException as failed:
            failed.add_note(f"with {faults!r}")
            raise
