# SPDX-License-Identifier: Apache-2.0
"""Endpoints that hand connections on: which one is next, what each leg has, and that packets pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from nsm_sdk import Client, Connection, Endpoint, OfferedService, Request
from nsm_sdk.api import Destination, Match, NetworkService
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.errors import InvalidRequest, NsmError
from nsm_sdk.lab import INPROC, MEMORY, NAMESPACES, Cluster, Counts, Mode, Node, Pod
from nsm_sdk.testing import current_clock, virtual_time
from tests.mesh.modes import why_not


def rule(source: dict[str, str], destination: dict[str, str]) -> Match:
    return Match(source_selector=source, routes=[Destination(destination_selector=destination)])


RULES = [rule({"app": "fw"}, {"app": "nse"}), rule({}, {"app": "fw"})]
"""Clients get the firewall, and that gets the endpoint behind it."""


class Filter(Element):
    """What a passthrough does: it sees both ways."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        self.seen.append(conn.network_service_endpoint_name)
        return conn


def built(counts: Counts) -> dict[tuple[str, str], int]:
    """What hops hold of connections."""
    kinds = ("addresses", "connections", "joined", "links", "slots")
    return {key: count for key, count in counts.found.items() if key[0] in kinds}


@asynccontextmanager
async def passing(
    node: Node, *elements: Element, rules: Sequence[Match] = RULES, passthrough: bool | str = True, **options: object
) -> AsyncGenerator[tuple[Endpoint, Pod], None]:
    pod = await node.pod("fw")
    given = {"service": OfferedService("fw", matches=rules), "labels": {"app": "fw"}, **options}
    made = Endpoint(
        "fw", *elements, registry=node.manager.url, namespace=pod.url, listen=node.cluster.address("fw"),
        passthrough=passthrough, **given,  # type: ignore[arg-type]
    )  # fmt: skip
    await made.start(clock=current_clock())
    try:
        yield made, pod
    finally:
        await made.stop()


@virtual_time
@pytest.mark.parametrize("mode", [INPROC, MEMORY], ids=str)
async def test_the_next_endpoint_is_chosen_by_the_labels_of_this_one(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        behind = await node.endpoint("nse-1", service="fw", labels={"app": "nse"}, matches=None)
        seen = Filter()
        async with passing(node, seen):
            client = await node.client("nsc-1")
            before = await cluster.counts()
            conn = await client.request("kernel://fw/nsm-1?color=red")
            assert [one.name for one in conn.path.path_segments] == [
                "nsc-1", "nsmgr-node-1", "forwarder-node-1", "fw", "nsmgr-node-1", "forwarder-node-1", "nse-1",
            ]  # fmt: skip
            assert dict(conn.labels) == {"color": "red"}
            assert conn.network_service_endpoint_name == "fw"
            assert conn.mechanism.parameters["name"] == "nsm-1"
            again = await client.refresh(conn)
            assert again.context == conn.context
            await client.close(conn)
            assert built(await cluster.counts()) == built(before)
            assert len(seen.seen) == 2
        assert behind.alive


@virtual_time
async def test_another_service_is_named_by_its_url() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        await node.endpoint("nse-1", service="other", labels={"color": "blue"}, payload="ETHERNET")
        url = "kernel://other?color=blue"
        async with passing(node, rules=[], passthrough=url):
            client = await node.client("nsc-1")
            for _ in range(2):
                conn = await client.request("kernel://fw/nsm-1")
                assert (conn.network_service, conn.payload) == ("fw", "IP")
                assert conn.path.path_segments[-1].name == "nse-1"
                refreshed = await client.refresh(conn)
                assert (refreshed.network_service, refreshed.payload) == ("fw", "IP")
                await client.close(conn)


@virtual_time
async def test_it_never_goes_round_in_a_circle() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node()
        async with passing(node, rules=[]):
            client = await node.client("nsc-1")
            with pytest.raises(NsmError, match="has come through endpoint 'fw' before") as caught:
                await client.request("kernel://fw/nsm-1")
            assert "match rules" in caught.value.hint
            await node.endpoint("nse-1", service="fw")
            for _ in range(4):
                conn = await client.request("kernel://fw/nsm-1")
                assert conn.path.path_segments[-1].name == "nse-1"
                await client.close(conn)


@virtual_time
async def test_a_chain_of_three_and_what_it_does_when_its_end_goes() -> None:
    rules = [rule({"app": "b"}, {"app": "nse"}), rule({"app": "a"}, {"app": "b"}), rule({}, {"app": "a"})]
    async with Cluster(INPROC) as cluster, AsyncExitStack() as stack:
        node = await cluster.node()
        one = await node.endpoint("nse-1", service="fw", labels={"app": "nse"})
        for name in ("a", "b"):
            # The labels of a service go before those of the endpoint.
            offered = OfferedService("fw", matches=rules, labels={"app": name})
            part = Endpoint(
                name, service=offered, labels={"app": "x"}, registry=node.manager.url,
                listen=cluster.address(name), passthrough=True, simulated=True,
            )  # fmt: skip
            await part.start(clock=current_clock())
            stack.push_async_callback(part.stop)
        client = await Client(node.manager.url).start(clock=current_clock())
        stack.push_async_callback(client.stop)
        async with client.connect("kernel://fw/nsm-1") as conn:
            assert [name for name in conn.path if "node" not in name] == ["nsc", "a", "b", "nse-1"]
            await node.endpoint("nse-2", service="fw", labels={"app": "nse"}, matches=NetworkService(matches=rules))
            await one.kill()
            await anyio.sleep(30.0)
            assert [name for name in conn.path if "node" not in name] == ["nsc", "a", "b", "nse-2"]


@pytest.mark.parametrize("url", ["other", "kernel://", "kernel://a b"])
def test_a_service_url_that_cannot_be_right(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Endpoint("fw", service="fw", registry="inproc://m", passthrough=url)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("payload", "prefix"),
    [("IP", "172.16.7.0/24"), ("ETHERNET", "172.16.7.0/24"), ("IP", "2001:db8:7::/64")],
)
async def test_packets_pass_both_ways(payload: str, prefix: str) -> None:
    if why_not(NAMESPACES):
        pytest.skip(why_not(NAMESPACES))
    async with Cluster(NAMESPACES) as cluster:
        node = await cluster.node()
        nse = await node.endpoint("nse-1", service="fw", labels={"app": "nse"}, payload=payload, prefix=prefix)
        offered = OfferedService("fw", matches=RULES, payload=payload)
        async with passing(node, service=offered) as (_, inside):
            kept = [one.name for one in await inside.links()]
            pods = [await node.pod(f"nsc-{number}") for number in (1, 2)]
            clients = [Client(node.manager.url, name=pod.name, namespace=pod.url) for pod in pods]
            for pod, client in zip(pods, clients, strict=True):
                async with client, client.connect("kernel://fw/nsm-1") as conn:
                    names = {one.name for one in await inside.links()} - set(kept)
                    assert len(names) == 2
                    source, target = conn.src[0].partition("/")[0], conn.dst[0].partition("/")[0]
                    assert (await pod.ping(target, source=source, count=3)).times
                    assert (await nse.pod.ping(source, source=target, count=3)).times
                    await conn.refresh()
                    assert (await pod.ping(target, source=source, count=1)).times
                assert [one.name for one in await inside.links()] == kept
