# SPDX-License-Identifier: Apache-2.0
"""Hops that crash and come back.

Does:  a forwarder killed under a running ping loses not one packet, adopts what it had built, and deletes what is an
       orphan; a manager, a registry and an endpoint that were killed leave the connection up, and refreshes go on.
Place: whole meshes, with real processes and real packets where the machine has them.
State: a cluster per test.
"""

from __future__ import annotations

import asyncio

import pytest

from nsm_sdk.api import Connection
from nsm_sdk.errors import NsmError, Unavailable
from nsm_sdk.lab import MEMORY, Cluster, Ground, LabClient, Mode, Node, ProgramHop
from nsm_sdk.mechanisms import CLIENT_SIDE, Tag
from nsm_sdk.mechanisms.model import SetLink
from nsm_sdk.netlink import KernelAdapter, namespace_path
from nsm_sdk.testing import settled
from tests.mesh.modes import URL, every_mode, nothing_left, run


async def refreshed(nsc: LabClient, conn: Connection, patience: float = 15.0) -> Connection:
    """Refresh as a client would that tries until it succeeds."""
    for _ in range(100):
        try:
            return await nsc.refresh(conn)
        except NsmError as error:
            failed = error
            await asyncio.sleep(patience / 100)
    raise AssertionError(f"no refresh came through: {failed}")


async def entries(cluster: Cluster) -> int:
    """How many services and endpoints the registry knows."""
    counts = await cluster.counts()
    return sum(counts.of(kind, cluster.registry.name) for kind in ("entries", "registrations"))


async def connected(cluster: Cluster) -> tuple[Node, LabClient, Connection]:
    node = await cluster.node("node-1")
    await node.endpoint("nse-1")
    nsc = await node.client("nsc-1")
    return node, nsc, await nsc.request(URL)


@every_mode("namespaces", "programs", "programs_tcp")
def test_not_one_ping_is_lost_while_the_forwarder_is_killed_and_started_again(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc, conn = await connected(cluster)
        before = await nsc.pod.links()
        source, target = (
            one[0].partition("/")[0]
            for one in (conn.context.ip_context.src_ip_addrs, conn.context.ip_context.dst_ip_addrs)
        )
        async with nsc.pod.pinging(target, source=source, interval=0.002) as pings:
            was = node.forwarder.pid if isinstance(node.forwarder, ProgramHop) else 0
            await node.forwarder.kill()
            assert not node.forwarder.alive
            await node.forwarder.restart()
            if isinstance(node.forwarder, ProgramHop):
                assert node.forwarder.pid != was
            conn = await refreshed(nsc, conn)
            await asyncio.sleep(0.05)
        assert pings.sent > 10
        assert pings.lost == 0
        # Adopted, not made again: the same link with the same index.
        assert await nsc.pod.links() == before
        await nsc.close(conn)
        assert await nsc.pod.links() == []
        assert (await cluster.counts()).of("connections") == 0

    run(mode, scenario)


@every_mode("memory", "namespaces", "programs")
def test_an_orphan_made_by_hand_is_deleted_and_the_living_is_not(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc, conn = await connected(cluster)
        orphan = await nsc.request("kernel://icmp-responder/orphan")
        other = await nsc.pod.links()
        assert len(other) == 2
        if mode.ground is Ground.KERNEL:
            rename(nsc.pod.url, "orphan", "renamed")
        await node.forwarder.kill()
        await node.forwarder.start()
        conn = await refreshed(nsc, conn)
        name = "renamed" if mode.ground is Ground.KERNEL else "orphan"
        assert {link.name for link in await nsc.pod.links()} == {"nsm-1", name}
        for _ in range(100):
            if [link.name for link in await nsc.pod.links()] == ["nsm-1"]:
                break
            await asyncio.sleep(0.1)
        assert [link.name for link in await nsc.pod.links()] == ["nsm-1"]
        assert (await nsc.ping(conn)).ok
        # Its client finds it again: a refresh makes what was swept.
        orphan = await refreshed(nsc, orphan)
        assert (await nsc.ping(orphan)).ok

    run(mode, scenario, orphan_timeout=1.0)


def rename(url: str, name: str, new: str) -> None:
    """What `ip link set NAME down; ip link set NAME name NEW` does."""
    kernel = KernelAdapter(open_ping=False)
    try:
        space = kernel.open(namespace_path(url))
        link = space.link(name=name)
        assert link is not None
        assert not space.apply(link.index, [SetLink(up=False), SetLink(name=new)])
    finally:
        kernel.close()


@every_mode("memory", "namespaces")
def test_a_link_with_the_tag_of_a_forwarder_that_forgot_its_records_is_adopted(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc, conn = await connected(cluster)
        before = await nsc.pod.links()
        await node.forwarder.kill()
        for record in (cluster.folder / f"state-{node.forwarder.name}").iterdir():
            record.unlink()
        await node.forwarder.start()
        conn = await refreshed(nsc, conn)
        assert await nsc.pod.links() == before
        segments = conn.path.path_segments
        tag = Tag(forwarder=node.forwarder.name, role=CLIENT_SIDE, segment=segments[0].id, connection=segments[2].id)
        assert before[0].alias == tag.alias
        await nsc.close(conn)
        assert await nsc.pod.links() == []

    run(mode, scenario)


@every_mode("inproc", "memory", "unix", "namespaces", "programs")
@pytest.mark.parametrize("hop", ["nsmgr-node-1", "registry", "forwarder-node-1"])
def test_the_connection_stays_and_refreshes_go_on(mode: Mode, hop: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        _, nsc, conn = await connected(cluster)
        known = await entries(cluster)
        assert known
        await cluster.kill(hop)
        assert (await nsc.ping(conn)).ok
        await cluster.restart(hop)
        again = await refreshed(nsc, conn)
        assert again.context == conn.context
        assert [one.name for one in again.path.path_segments] == [one.name for one in conn.path.path_segments]
        assert [one.id for one in again.path.path_segments] == [one.id for one in conn.path.path_segments]
        assert (await nsc.ping(again)).ok
        await nsc.close(again)
        for _ in range(50):
            if not (await cluster.counts()).of("connections"):
                break
            await asyncio.sleep(0.1)
        assert (await cluster.counts()).of("connections") == 0
        # New ones work too, and at once, when everybody has registered again.
        for _ in range(100):
            if await entries(cluster) == known:
                break
            await asyncio.sleep(0.05)
        assert await entries(cluster) == known
        conn = await nsc.request(URL)
        assert (await nsc.ping(conn)).ok

    run(mode, scenario)


@every_mode("inproc", "unix", "programs_simulated")
def test_everything_is_restarted_at_once(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc, conn = await connected(cluster)
        hops = (cluster.registry, node.manager, node.forwarder, cluster.hops["nse-1"])
        for hop in hops:
            await hop.kill()
        for hop in reversed(hops):
            await hop.start()
        again = await refreshed(nsc, conn)
        assert again.context.ip_context.src_ip_addrs == conn.context.ip_context.src_ip_addrs
        assert (await nsc.ping(again)).ok

    run(mode, scenario)


@every_mode("inproc", "memory")
def test_a_client_that_crashed_is_cleaned_up_after_its_token(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc, probe = await node.client("nsc-1"), await node.client("nsc-2")
        await probe.close(await probe.request(URL))
        before = await cluster.counts()
        await nsc.request(URL)
        await nsc.kill()
        assert (await cluster.counts()).of("connections") == 3
        await asyncio.sleep(599)
        await settled()
        await nothing_left(cluster, before)

    run(mode, scenario)


@pytest.mark.long
@every_mode("inproc")
def test_a_client_that_works_is_refreshed_for_a_day(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        _, nsc, conn = await connected(cluster)
        before = await cluster.counts()
        # Not a round time: refreshes are under way then.
        await asyncio.sleep(86_407.3)
        assert (await nsc.ping(conn)).ok
        left = (await cluster.counts()).new_since(before, apart=("descriptors",))
        assert not [text for text in left if "follow" not in text]
        await nsc.close(conn)
        assert (await cluster.counts()).of("connections") == 0

    run(mode, scenario)


def test_while_the_forwarder_is_down_a_refresh_says_so_and_packets_flow() -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc, conn = await connected(cluster)
        await node.forwarder.kill()
        with pytest.raises(Unavailable) as caught:
            await nsc.refresh(conn)
        assert "nobody answers" in str(caught.value)
        assert caught.value.hop == "nsmgr-node-1"
        assert caught.value.hint
        assert (await nsc.ping(conn)).ok

    run(MEMORY, scenario)
