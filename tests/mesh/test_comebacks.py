# SPDX-License-Identifier: Apache-2.0
"""Who comes back, and who only bears a name: one client has one interface and one address, and harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from nsm_sdk.api import Connection, Request, Selector, State
from nsm_sdk.elements import Begin, Monitor
from nsm_sdk.errors import AlreadyExists, NsmError, Unavailable
from nsm_sdk.lab import MEMORY, Cluster, LabClient, LabEndpoint, Node, Pod, ServedHop
from nsm_sdk.testing import settled, virtual_time

LIFE = 60.0
URL = "kernel://icmp-responder/nsm-1"


async def mesh(cluster: Cluster) -> tuple[Node, LabEndpoint, LabClient]:
    node = await cluster.node("node-1")
    return node, await node.endpoint("nse-1", prefix="10.0.0.0/29"), await node.client("a")


async def until_registered(cluster: Cluster) -> None:
    for hop in cluster.hops.values():
        if isinstance(hop, ServedHop):
            await hop.registered()


async def connected(client: LabClient, known: Connection | None = None) -> Connection:
    """Ask until it works: what was started again may still be registering."""
    while True:
        try:
            return await (client.request(URL, id="a-0") if known is None else client.refresh(known))
        except NsmError as error:
            if isinstance(error, AlreadyExists):
                raise
            await asyncio.sleep(0.2)


async def interfaces(pod: Pod) -> list[str]:
    return sorted(link.name for link in await pod.links())


NAMES = ("a", "nsmgr-node-1", "forwarder-node-1", "registry", "nse-1")
SETS = [[name for bit, name in enumerate(NAMES) if number >> bit & 1] for number in range(1, 32)]


@virtual_time
@pytest.mark.parametrize("keeps_secrets", [True, False], ids=["kept", "lost"])
@pytest.mark.parametrize("killed", SETS, ids=["+".join(one) for one in SETS])
async def test_killed_together_they_come_back_to_one_interface_and_one_address(
    killed: list[str], keeps_secrets: bool
) -> None:
    async with Cluster(
        MEMORY, token_life=LIFE, orphan_timeout=LIFE, dial_timeout=0.2, keeps_secrets=keeps_secrets
    ) as cluster:
        _, endpoint, client = await mesh(cluster)
        before = await client.request(URL, id="a-0")
        for name in killed:
            await cluster.kill(name)
        for name in reversed(killed):
            await cluster.restart(name)
        await until_registered(cluster)
        async with asyncio.timeout(6):
            conn = await connected(client, None if "a" in killed else before)
        assert (await client.ping(conn)).ok
        await settled()
        assert len(await interfaces(client.pod)) == len(await interfaces(endpoint.pod)) == 1
        if keeps_secrets or "forwarder-node-1" not in killed:
            # Without either a forwarder does not know what to close; there the former's token ends it.
            assert isinstance(endpoint.hop, ServedHop)
            assert len(endpoint.hop.find(Begin)) == 1
        await client.close(conn)
        await settled()
        assert await interfaces(client.pod) == await interfaces(endpoint.pod) == []


@virtual_time
@pytest.mark.parametrize("keeps_secrets", [True, False], ids=["kept", "lost"])
async def test_an_endpoint_with_room_for_one_serves_the_client_that_comes_back(keeps_secrets: bool) -> None:
    async with Cluster(MEMORY, token_life=LIFE, dial_timeout=0.2, keeps_secrets=keeps_secrets) as cluster:
        node = await cluster.node("node-1")
        endpoint = await node.endpoint("nse-1", prefix="10.0.0.0/31")
        client = await node.client("a")
        await client.request(URL, id="a-0")
        for name in ("a", "nsmgr-node-1"):
            await cluster.kill(name)
        for name in ("nsmgr-node-1", "a"):
            await cluster.restart(name)
        await until_registered(cluster)
        conn = await connected(client)
        assert (await client.ping(conn)).ok
        await settled()
        assert len(await interfaces(endpoint.pod)) == 1


@virtual_time
@pytest.mark.parametrize("keeps_secrets", [True, False], ids=["kept", "lost"])
@pytest.mark.parametrize(
    "restarted", [(), ("nsmgr-node-1",), ("forwarder-node-1",), ("nsmgr-node-1", "forwarder-node-1")]
)
async def test_a_second_client_of_a_name_is_refused_and_harms_nobody(
    restarted: tuple[str, ...], keeps_secrets: bool
) -> None:
    async with Cluster(MEMORY, token_life=LIFE, dial_timeout=0.2, keeps_secrets=keeps_secrets) as cluster:
        node, endpoint, client = await mesh(cluster)
        before = await client.request(URL, id="a-0")
        links = [*await client.pod.links(), *await endpoint.pod.links()]
        for name in restarted:
            await cluster.restart(name)
        await until_registered(cluster)
        second = await node.client("a", namesake=True, pod=await node.pod("elsewhere"))
        for _ in range(3):
            with pytest.raises(AlreadyExists, match="'a' lives in network namespace"):
                await connected(second)
            await settled()
            await second.close(Connection(id="a-0"))
            await settled()
        assert (await client.ping(before)).ok
        again = await client.refresh(before)
        assert again.context.ip_context == before.context.ip_context
        assert [*await client.pod.links(), *await endpoint.pod.links()] == links
        # With the first one gone, the second takes its place.
        await client.kill()
        conn = await connected(second)
        assert (await second.ping(conn)).ok
        assert await interfaces(client.pod) == []
        assert len(await interfaces(endpoint.pod)) == 1


def from_nowhere(request: Request) -> None:
    request.connection.network_service = "unknown"


def at_nobody(request: Request) -> None:
    request.connection.network_service_endpoint_name = "nobody"


def anew(request: Request) -> None:
    request.connection.state = State.RESELECT_REQUESTED


def states(cluster: Cluster, name: str) -> list[State]:
    hop = cluster.hops[name]
    assert isinstance(hop, ServedHop)
    monitor = hop.running.find(Monitor)
    assert monitor is not None
    return [State(conn.state) for conn in monitor.hub.connections(Selector())]


@virtual_time
@pytest.mark.parametrize("edit", [from_nowhere, at_nobody, anew])
async def test_a_second_client_of_a_name_that_is_refused_for_another_reason_harms_nobody(
    edit: Callable[[Request], None],
) -> None:
    async with Cluster(MEMORY, token_life=LIFE, dial_timeout=0.2) as cluster:
        node, endpoint, client = await mesh(cluster)
        before = await client.request(URL, id="a-0")
        links = [*await client.pod.links(), *await endpoint.pod.links()]
        second = await node.client("a", namesake=True, pod=await node.pod("elsewhere"))
        for _ in range(2):
            with pytest.raises(NsmError):
                await second.request(URL, id="a-0", edit=edit)
            await settled()
        for name in ("nsmgr-node-1", "forwarder-node-1"):
            assert states(cluster, name) == [State.UP]
        assert (await client.ping(before)).ok
        await client.refresh(before)
        assert [*await client.pod.links(), *await endpoint.pod.links()] == links
        await client.close(before)
        assert await interfaces(client.pod) == await interfaces(endpoint.pod) == []


@virtual_time
async def test_a_second_client_of_a_name_harms_nobody_while_the_forwarder_is_away() -> None:
    async with Cluster(MEMORY, token_life=LIFE, dial_timeout=0.2) as cluster:
        node, endpoint, client = await mesh(cluster)
        before = await client.request(URL, id="a-0")
        links = [*await client.pod.links(), *await endpoint.pod.links()]
        second = await node.client("a", namesake=True, pod=await node.pod("elsewhere"))
        await cluster.kill("forwarder-node-1")
        with pytest.raises(Unavailable):
            await second.request(URL, id="a-0")
        await settled()
        await cluster.restart("forwarder-node-1")
        await until_registered(cluster)
        # By then what could not be closed while it was away would be closed.
        await asyncio.sleep(5)
        assert (await client.ping(before)).ok
        assert [*await client.pod.links(), *await endpoint.pod.links()] == links


@virtual_time
async def test_a_dead_clients_addresses_go_to_another_though_the_forwarder_was_away() -> None:
    async with Cluster(MEMORY, token_life=LIFE, orphan_timeout=LIFE, dial_timeout=0.2) as cluster:
        node, endpoint, client = await mesh(cluster)
        other = await node.client("b")
        dead = await client.request(URL, id="a-0")
        await client.kill()
        await cluster.kill("forwarder-node-1")
        await asyncio.sleep(2 * LIFE)
        await cluster.restart("forwarder-node-1")
        await until_registered(cluster)
        conn = await other.request("kernel://icmp-responder/b", id="b-0")
        assert list(conn.context.ip_context.src_ip_addrs) == list(dead.context.ip_context.src_ip_addrs)
        assert (await other.ping(conn)).ok
        assert len(await interfaces(endpoint.pod)) == 1
