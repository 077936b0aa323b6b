# SPDX-License-Identifier: Apache-2.0
"""Client: what an application sees of its connections, and what a client that comes back finds."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import anyio
import pytest

from nsm_sdk import Client
from nsm_sdk.api import Connection, Request
from nsm_sdk.errors import NsmError, ProgrammingError
from nsm_sdk.heal import Ask, Heal, Liveness
from nsm_sdk.lab import INPROC, Cluster, Counts, Node
from nsm_sdk.testing import settled, virtual_time

URL = "kernel://database/nsm-1"


async def left_by_a_crash(node: Node) -> Connection:
    """The connection of a client whose process was killed: nothing is closed."""
    client = Client(node.manager.url, name="app", resume=True)
    async with client, client.connect(URL) as connection:
        client.running.kill()
        await client.running.wait_ended()
        return connection.connection


async def node_with_endpoints(cluster: Cluster, *names: str) -> Node:
    node = await cluster.node()
    for number, name in enumerate(names):
        await node.endpoint(name, service="database", prefix=f"10.0.{number}.0/24")
    return node


def built(counts: Counts) -> dict[tuple[str, str], int]:
    """What hops hold of connections."""
    kinds = ("addresses", "connections", "joined", "published", "slots")
    return {key: count for key, count in counts.found.items() if key[0] in kinds}


@virtual_time
async def test_a_client_that_comes_back_keeps_its_connection() -> None:
    async with Cluster(INPROC) as cluster:
        node = await node_with_endpoints(cluster, "nse-1")
        was = await left_by_a_crash(node)
        before = built(await cluster.counts())
        async with Client(node.manager.url, name="app", resume=True) as again, again.connect(URL) as after:
            assert after.id == was.id
            assert after.connection.context.ip_context == was.context.ip_context
            ids = [segment.id for segment in after.connection.path.path_segments]
            assert ids == [segment.id for segment in was.path.path_segments]
            assert built(await cluster.counts()) == before, "nothing was built anew"


@virtual_time
async def test_a_client_that_asks_for_something_else_leaves_it_alone() -> None:
    async with Cluster(INPROC) as cluster:
        node = await node_with_endpoints(cluster, "nse-1")
        was = await left_by_a_crash(node)
        async with (
            Client(node.manager.url, name="app", resume=True) as again,
            again.connect("kernel://database/nsm-2") as other,
        ):
            assert other.id != was.id
            assert other.src == ["10.0.0.3/32"]


@virtual_time
async def test_the_check_runs_first_and_a_dead_connection_moves() -> None:
    async def flows(conn: Connection) -> bool:
        return conn.network_service_endpoint_name != "nse-1"

    async with Cluster(INPROC) as cluster:
        node = await node_with_endpoints(cluster, "nse-1")
        was = await left_by_a_crash(node)
        await node.endpoint("nse-2", service="database", prefix="10.0.2.0/24")
        heal = Heal(Ask(flows), liveness=Liveness(interval=1000.0, timeout=0.5))
        async with Client(node.manager.url, name="app", resume=True, heal=heal) as again, again.connect(URL) as after:
            assert after.id == was.id
            assert after.endpoint == "nse-2"
            await anyio.sleep(1.0)
            assert after.src == ["10.0.2.1/32"]


@virtual_time
async def test_two_connections_to_one_url_are_two() -> None:
    async with Cluster(INPROC) as cluster:
        node = await node_with_endpoints(cluster, "nse-1")
        url = "kernel://database"
        async with Client(node.manager.url, name="app", resume=True) as client:
            async with client.connect(url) as one, client.connect(url) as two:
                assert one.id != two.id
                lasting = one.id
            async with client.connect(url) as three:
                assert three.id == lasting
            with pytest.raises(NsmError):
                async with client.connect("kernel://nobody", timeout=0.2):
                    raise AssertionError("must not be reached")
            assert client._lasting == set()
        async with Client(node.manager.url, name="another", resume=True) as other, other.connect(url) as theirs:
            assert theirs.id != lasting


@virtual_time
async def test_a_second_request_for_an_open_connection_that_fails_leaves_it_open() -> None:
    async with Cluster(INPROC) as cluster:
        node = await node_with_endpoints(cluster, "nse-1")
        async with Client(node.manager.url, name="app", heal=False) as client, client.connect(URL, id="a") as one:
            before = built(await cluster.counts())
            await node.manager.kill()
            with pytest.raises(NsmError):
                async with client.connect(URL, id="a", timeout=0.5):
                    raise AssertionError("must not be reached")
            with anyio.move_on_after(0.5):
                async with client.connect(URL, id="a", timeout=5.0):
                    raise AssertionError("must not be reached")
            assert client.connections == [one]
            await node.manager.restart()
            await settled()
            await one.refresh()
            assert built(await cluster.counts()) == before


@virtual_time
async def test_a_manager_that_comes_up_late_is_asked_when_it_is_there() -> None:
    async with Cluster(INPROC) as cluster:
        node = await node_with_endpoints(cluster, "nse-1")
        await node.manager.kill()
        async with Client(node.manager.url, name="app", resume=True, timeout=60.0) as client, AsyncExitStack() as stack:
            connecting = asyncio.ensure_future(stack.enter_async_context(client.connect(URL)))
            await anyio.sleep(8.0)
            assert not connecting.done()
            await node.manager.restart()
            assert (await connecting).endpoint == "nse-1"


@virtual_time
async def test_a_client_outside_of_its_block_says_so() -> None:
    client = Client("inproc://manager")
    with pytest.raises(ProgrammingError, match="not running"):
        await client.open(Request())
    async with client:
        with pytest.raises(ProgrammingError, match="running already"):
            await client.start()
    await settled()
    assert client.connections == []
