# SPDX-License-Identifier: Apache-2.0
"""Healing with real packets.

Does:  a client in a namespace of its own that pings its endpoint; programs of the control plane die and come back, the
       link goes down, the endpoint's interface goes: what moves and what does not, and what is left over.
Place: nsm_sdk.heal with the probes and ports of this machine; skipped where there are no namespaces.
State: a cluster per test.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from nsm_sdk import lab
from nsm_sdk.api import Connection
from nsm_sdk.heal import Auto, Event, Happening, Heal, Kind, Liveness, story
from nsm_sdk.lab import Cluster, LabClient, LabEndpoint, Node
from nsm_sdk.mechanisms.model import SetLink
from nsm_sdk.netlink import SocketWatch, run_inside
from nsm_sdk.netlink.requests import encode
from nsm_sdk.netlink.sockets import NetlinkSocket
from tests.mesh.modes import every_mode, run

pytestmark = pytest.mark.netns
URL = "kernel://icmp-responder/nsm-1"


def set_down(interface: str) -> None:
    channel = NetlinkSocket()
    try:
        channel.send([encode(SetLink(up=False), socket.if_nametoindex(interface))])
    finally:
        channel.close()


class Scene:
    """One client that heals, two endpoints."""

    def __init__(self, node: Node, client: LabClient, heal: Heal, endpoints: dict[str, LabEndpoint]) -> None:
        self.node = node
        self.client = client
        self.heal = heal
        self.endpoints = endpoints
        self.happened: asyncio.Queue[Happening] = asyncio.Queue()
        heal.happenings.told.append(self.happened.put_nowait)

    @classmethod
    async def of(cls, cluster: Cluster) -> Scene:
        node = await cluster.node("node-1")
        names = ("nse-1", "nse-2")
        endpoints = {name: await node.endpoint(name, prefix=f"172.16.{n}.0/24") for n, name in enumerate(names)}
        pod = await node.pod("nsc-1")
        heal = Heal(
            Auto(links=SocketWatch.open, inside=run_inside),
            liveness=Liveness(interval=0.2, timeout=0.2),
            namespace=pod.url,
            seed=1,
        )
        return cls(node, await node.client("nsc-1", heal, pod=pod), heal, endpoints)

    async def until(self, event: Event, patience: float = 20.0) -> Happening:
        """Wait for it."""
        async with asyncio.timeout(patience):
            while True:
                happening = await self.happened.get()
                if happening.event is event:
                    return happening

    def cost(self, conn: Connection) -> tuple[int, int]:
        journal = self.heal.journals.get(conn.id)
        assert journal is not None
        return journal.heals, journal.moves

    def story(self, conn: Connection) -> str:
        journal = self.heal.journals.get(conn.id)
        assert journal is not None
        return story(journal)


@every_mode("namespaces")
@pytest.mark.parametrize("hop", ["manager", "forwarder"])
def test_not_one_ping_is_lost_and_nothing_moves(mode: lab.Mode, hop: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await Scene.of(cluster)
        conn = await scene.client.request(URL)
        before = await scene.client.pod.links()
        ip = conn.context.ip_context
        source, target = (one[0].partition("/")[0] for one in (ip.src_ip_addrs, ip.dst_ip_addrs))
        killed = scene.node.manager if hop == "manager" else scene.node.forwarder
        async with scene.client.pod.pinging(target, source=source, interval=0.01) as pings:
            await asyncio.sleep(0.3)
            await killed.kill()
            await asyncio.sleep(0.5)
            await killed.restart()
            if hop == "forwarder":
                await scene.until(Event.HEALED)
            else:
                await asyncio.sleep(1.0)
        assert pings.sent > 20
        assert pings.lost == 0, scene.story(conn)
        assert scene.cost(conn)[1] == 0, scene.story(conn)
        assert await scene.client.pod.links() == before
        await scene.client.close(conn)
        assert await scene.client.pod.links() == []

    run(mode, scenario)


@every_mode("namespaces")
def test_link_set_down_is_repaired(mode: lab.Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await Scene.of(cluster)
        conn = await scene.client.request(URL)
        await asyncio.sleep(0.3)
        began = asyncio.get_running_loop().time()
        run_inside(scene.client.pod.url, lambda: set_down("nsm-1"))
        down = await scene.until(Event.DOWN)
        assert down.at - began < 0.5
        await scene.until(Event.HEALED)
        conn = await scene.client.refresh(conn)
        assert (await scene.client.ping(conn)).ok, scene.story(conn)
        await scene.client.close(conn)
        assert await scene.client.pod.links() == []

    run(mode, scenario)


@every_mode("namespaces")
def test_an_endpoint_that_falls_silent_is_left_for_another(mode: lab.Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await Scene.of(cluster)
        conn = await scene.client.request(URL)
        first = conn.network_service_endpoint_name
        await asyncio.sleep(0.5)
        pod = scene.endpoints[first].pod
        (link,) = await pod.links()
        run_inside(pod.url, lambda: set_down(link.name))
        healed = await scene.until(Event.HEALED)
        assert healed.moved, scene.story(conn)
        conn = await scene.client.refresh(conn)
        assert conn.network_service_endpoint_name != first
        assert (await scene.client.ping(conn)).ok, scene.story(conn)
        journal = scene.heal.journals.get(conn.id)
        assert journal is not None
        assert journal.of(Kind.DOWN)
        await scene.client.close(conn)
        assert await scene.client.pod.links() == []
        assert await pod.links() == []

    run(mode, scenario)


@every_mode("namespaces")
def test_an_endpoint_killed_with_its_datapath_alive_is_kept(mode: lab.Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await Scene.of(cluster)
        conn = await scene.client.request(URL)
        used = scene.endpoints[conn.network_service_endpoint_name]
        await asyncio.sleep(0.3)
        await used.kill()
        await scene.until(Event.HEALING)
        await asyncio.sleep(0.5)
        assert (await scene.client.ping(conn)).ok, scene.story(conn)
        await used.restart()
        healed = await scene.until(Event.HEALED)
        assert not healed.moved, scene.story(conn)
        await scene.client.close(conn)

    run(mode, scenario)
