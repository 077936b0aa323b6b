# SPDX-License-Identifier: Apache-2.0
"""Endpoint: registered as it says, for as long as it runs, whatever becomes of its manager."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from nsm_sdk import Client, Endpoint, OfferedService
from nsm_sdk.api import Destination, Match, NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import Element, Query, find_all
from nsm_sdk.endpoint import RegisteredRole
from nsm_sdk.errors import DeadlineExceeded, InvalidRequest, NsmError
from nsm_sdk.ipam import PointToPointIpam
from nsm_sdk.lab import INPROC, UNIX, Cluster, Node, ServedHop
from nsm_sdk.testing import current_clock, settled, virtual_time

URL = "kernel://database/nsm-1"


def endpoint(node: Node, name: str = "app", *elements: Element, **options: object) -> Endpoint:
    given = {"service": "database", "listen": f"inproc://{name}", **options}
    return Endpoint(name, *(elements or (PointToPointIpam("10.0.0.0/24"),)), registry=node.manager.url, **given)  # type: ignore[arg-type]


async def entries(cluster: Cluster) -> dict[str, NetworkServiceEndpoint]:
    hop = cluster.registry
    assert isinstance(hop, ServedHop)
    assert hop.running.bound.nse is not None
    found = await find_all(hop.running.bound.nse, hop.running.call(), Query(NetworkServiceEndpoint()))
    return {one.name: one for one in found}


async def services(cluster: Cluster) -> dict[str, NetworkService]:
    hop = cluster.registry
    assert isinstance(hop, ServedHop)
    assert hop.running.bound.ns is not None
    found = await find_all(hop.running.bound.ns, hop.running.call(), Query(NetworkService()))
    return {one.name: one for one in found}


@virtual_time
async def test_in_the_background_it_registers_when_its_manager_comes_up() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        await node.manager.kill()
        async with endpoint(node, register="background") as late:
            await anyio.sleep(100.0)
            assert late.registration is None
            with pytest.raises(DeadlineExceeded, match="could not register within 1 s"):
                await late.registered(timeout=1.0)
            await node.manager.restart()
            assert (await late.registered()).name == "app"
            await node.manager.kill()
            await cluster.registry.restart()
            await node.manager.restart()
            await anyio.sleep(10.0)
            assert "app" in await entries(cluster)
        assert "app" not in await entries(cluster)


@virtual_time
async def test_what_is_refused_for_good_is_said_while_trying_goes_on() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        async with endpoint(node, service=["database", "x" * 20_000_000], register="background") as refused:
            with pytest.raises(NsmError) as caught:
                await refused.registered()
            assert caught.value.hint
            assert refused.registration is None


@virtual_time
async def test_waiting_it_raises_what_prevents_it_and_leaves_nothing() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        await node.manager.kill()
        with pytest.raises(NsmError):
            await endpoint(node, timeout=1.0).start()
        await settled()
        async with endpoint(node, register="never") as unregistered:
            assert unregistered.url == "inproc://app"


@virtual_time
async def test_services_have_labels_payloads_and_rules_of_their_own() -> None:
    rule = Match(source_selector={"app": "web"}, routes=[Destination(destination_selector={"app": "db"})])
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        offered = ["plain", OfferedService("ruled", labels={"app": "db"}, payload="ETHERNET", matches=[rule])]
        async with endpoint(node, service=offered, labels={"zone": "a"}):
            entry, known = (await entries(cluster))["app"], await services(cluster)
            assert dict(entry.network_service_labels["plain"].labels) == {"zone": "a"}
            assert dict(entry.network_service_labels["ruled"].labels) == {"app": "db"}
            assert (known["plain"].payload, list(known["plain"].matches)) == ("IP", [])
            assert (known["ruled"].payload, list(known["ruled"].matches)) == ("ETHERNET", [rule])


@virtual_time
async def test_it_is_told_when_it_is_not_needed() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        idle = anyio.Event()
        app, client = endpoint(node, idle_timeout=30.0, on_idle=idle.set), Client(node.manager.url)
        await app.start(clock=current_clock())
        await client.start(clock=current_clock())
        async with client.connect(URL):
            await anyio.sleep(100.0)
            assert not idle.is_set()
        await anyio.sleep(31.0)
        assert idle.is_set()
        await client.stop()
        await app.stop()


@virtual_time
async def test_a_client_of_its_own_lives_as_long_as_it() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        await node.endpoint("nse-1", service="upstream")
        client = Client(node.manager.url, name="app")
        async with endpoint(node, client=client), client.connect("kernel://upstream/nsm-2") as behind:
            assert behind.endpoint == "nse-1"
        assert client.served == []


@virtual_time
async def test_a_kill_leaves_the_registration() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        app = endpoint(node)
        await app.start()
        for running in app.served:
            running.kill()
        await app.stop()
        assert "app" in await entries(cluster)


async def test_without_an_address_it_listens_at_a_socket_of_its_own() -> None:
    async with Cluster(UNIX) as cluster:
        node = await cluster.node()
        async with endpoint(node, listen="") as app, Client(node.manager.url) as client, client.connect(URL) as conn:
            assert app.url.startswith("unix:///")
            assert conn.endpoint == "app"


@pytest.mark.parametrize("make", [lambda: Endpoint("a", service=[], registry="x"),
                                  lambda: Endpoint("a", service=["b", ""], registry="x"),
                                  lambda: Endpoint("a", service=OfferedService(""), registry="x")])  # fmt: skip
def test_an_endpoint_without_a_service_is_refused(make: Callable[[], RegisteredRole]) -> None:
    with pytest.raises(InvalidRequest, match="has no service") as caught:
        make()
    assert caught.value.hop == "a"
