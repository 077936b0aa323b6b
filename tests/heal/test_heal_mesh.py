# SPDX-License-Identifier: Apache-2.0
"""Healing among real hops: registry, manager, forwarder and endpoints in one process, in virtual time.

Does:  kills each of them in turn under a client that heals, and looks where its connection ends up.
Place: nsm_sdk.heal in a whole mesh.
State: a cluster per test.
"""

from __future__ import annotations

from nsm_sdk.api import Connection
from nsm_sdk.heal import Ask, Heal, Liveness
from nsm_sdk.lab import Cluster
from nsm_sdk.testing import VirtualClock, settled, virtual_time

URL = "kernel://icmp-responder"


class Sight:
    """An application's check: what it has been told to be dead is dead."""

    def __init__(self) -> None:
        self.dead: set[str] = set()

    async def alive(self, conn: Connection) -> bool:
        return conn.network_service_endpoint_name not in self.dead


def cost(heal: Heal, conn_id: str) -> tuple[int, int]:
    journal = heal.journals.get(conn_id)
    assert journal is not None
    return journal.heals, journal.moves


@virtual_time
async def test_endpoint_killed_and_another_stands_by() -> None:
    async with Cluster() as cluster:
        node = await cluster.node("node-1")
        first = await node.endpoint("nse-1")
        heal = Heal(seed=1)
        nsc = await node.client("nsc-1", heal)
        conn = await nsc.request(URL)
        assert conn.network_service_endpoint_name == "nse-1"
        await node.endpoint("nse-2")
        await settled()
        await first.hop.kill()
        await VirtualClock().advance(1)
        assert cost(heal, conn.id) == (1, 1)
        standing = heal.standing(conn.id)
        assert standing is not None
        await nsc.close(conn)


@virtual_time
async def test_manager_killed_and_restarted_moves_nothing() -> None:
    async with Cluster() as cluster:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        await node.endpoint("nse-2")
        heal = Heal(Ask(Sight().alive), liveness=Liveness(interval=1.0), seed=1)
        nsc = await node.client("nsc-1", heal)
        conn = await nsc.request(URL)
        await settled()
        await node.manager.kill()
        await VirtualClock().advance(5)
        await node.manager.restart()
        await VirtualClock().advance(300)
        assert cost(heal, conn.id)[0] >= 1
        assert cost(heal, conn.id)[1] == 0
        await nsc.close(conn)


@virtual_time
async def test_silent_datapath_leaves_the_endpoint_that_fails() -> None:
    async with Cluster() as cluster:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        await node.endpoint("nse-2")
        sight = Sight()
        heal = Heal(Ask(sight.alive), liveness=Liveness(interval=0.2, timeout=0.1), seed=1)
        nsc = await node.client("nsc-1", heal)
        conn = await nsc.request(URL)
        for _ in range(5):
            sight.dead = {conn.network_service_endpoint_name}
            await VirtualClock().advance(1)
            conn = await nsc.refresh(conn)
            assert conn.network_service_endpoint_name not in sight.dead
        assert cost(heal, conn.id) == (5, 5)
        await nsc.close(conn)


@virtual_time
async def test_forwarder_killed_and_restarted() -> None:
    async with Cluster() as cluster:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        heal = Heal(Ask(Sight().alive), liveness=Liveness(interval=1.0), seed=1)
        nsc = await node.client("nsc-1", heal)
        conn = await nsc.request(URL)
        await settled()
        await node.forwarder.kill()
        await VirtualClock().advance(3)
        await node.forwarder.restart()
        await VirtualClock().advance(10)
        assert cost(heal, conn.id) == (1, 0)
        await nsc.close(conn)
