# SPDX-License-Identifier: Apache-2.0
"""The main job: a client gets an interface to an endpoint.

Does:  four segments, the forwarder third; the endpoint gets the first address, the client the next; both ping each
       other; refresh keeps everything; close leaves nothing.
Place: whole meshes, in every mode.
State: a cluster per test.
"""

from __future__ import annotations

import itertools

import pytest

from nsm_sdk.api import Connection, NetworkService, Request, names, policy_route
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.lab import INPROC, UNIX, Cluster, Ground, Mode
from nsm_sdk.lab.faults import go_on, stand_still
from nsm_sdk.lab.node import registered
from nsm_sdk.testing import Park
from tests.mesh.modes import URL, every_mode, nothing_left, run


@every_mode()
def test_request_ping_refresh_close(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        nse = await node.endpoint("nse-1", prefix="172.16.0.0/24")
        nsc = await node.client("nsc-1")
        await nsc.close(await nsc.request(URL))
        before = await cluster.counts()

        conn = await nsc.request(URL)
        assert names(conn) == ["nsc-1", "nsmgr-node-1", "forwarder-node-1", "nse-1"]
        assert conn.path.index == 0
        assert conn.path.path_segments[2].name == "forwarder-node-1"
        assert list(conn.context.ip_context.dst_ip_addrs) == ["172.16.0.0/32"]
        assert list(conn.context.ip_context.src_ip_addrs) == ["172.16.0.1/32"]
        assert conn.network_service_endpoint_name == "nse-1"
        assert conn.mechanism.type == "KERNEL"
        assert (await nsc.ping(conn, count=3)).ok
        assert (await nse.ping(conn, count=3)).ok
        if mode.ground is not Ground.SIMULATED:
            assert [link.name for link in await nsc.pod.links()] == ["nsm-1"]
            way = await nsc.pod.route_get("172.16.0.0")
            assert way is not None
            assert (way.interface, way.source) == ("nsm-1", "172.16.0.1")
            assert await nsc.pod.route_get("10.99.0.1") is None

        again = await nsc.refresh(conn)
        assert again.id == conn.id
        assert names(again) == names(conn)
        assert again.context == conn.context
        assert again.mechanism == conn.mechanism
        assert [segment.id for segment in again.path.path_segments] == [
            segment.id for segment in conn.path.path_segments
        ]
        assert (await nsc.ping(again)).ok

        held = await cluster.counts()
        assert held.of("connections") == 4
        await nsc.close(again)
        # One descriptor may come or go by itself: connections between programs open when they are used.
        await nothing_left(cluster, before, "descriptors")
        assert (await cluster.counts()).of("connections") == 0

    run(mode, scenario)


@every_mode("inproc", "memory", "namespaces")
def test_both_families(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        nse = await node.endpoint("nse-1", prefix=("10.1.0.0/24", "2001:db8::/64"))
        nsc = await node.client("nsc-1")
        conn = await nsc.request(URL)
        assert list(conn.context.ip_context.src_ip_addrs) == ["10.1.0.1/32", "2001:db8::1/128"]
        there, back = await nsc.ping(conn, count=2), await nse.ping(conn, count=2)
        assert (there.sent, there.lost, back.sent, back.lost) == (4, 0, 4, 0)
        await nsc.close(conn)
        assert await nsc.pod.links() == []

    run(mode, scenario)


@every_mode("inproc", "memory", "namespaces")
def test_connections_of_several_clients_do_not_meet(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        nse = await node.endpoint("nse-1")
        clients = [await node.client(f"nsc-{number}") for number in range(3)]
        conns: list[Connection] = [await nsc.request(URL) for nsc in clients]
        taken = [address for conn in conns for address in conn.context.ip_context.src_ip_addrs]
        assert taken == ["172.16.0.1/32", "172.16.0.3/32", "172.16.0.5/32"]
        await clients[1].close(conns[1])
        for nsc, conn in ((clients[0], conns[0]), (clients[2], conns[2])):
            assert (await nsc.ping(conn)).ok
            assert (await nse.ping(conn)).ok
        if mode.ground is Ground.KERNEL:
            with pytest.raises(FailedPrecondition, match="cannot send from"):
                await clients[1].ping(conns[1])
        else:
            assert (await clients[1].ping(conns[1])).lost == 1
        # What was given back is given out again, lowest first.
        conn = await clients[1].request(URL)
        assert list(conn.context.ip_context.src_ip_addrs) == ["172.16.0.3/32"]

    run(mode, scenario)


@every_mode("memory", "namespaces")
def test_several_services_in_one_pod(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("red", service="red", prefix="10.1.0.0/24")
        await node.endpoint("blue", service="blue", prefix="10.2.0.0/24")
        nsc = await node.client("nsc-1")
        red, blue = await nsc.request("kernel://red/red-0"), await nsc.request("kernel://blue/blue-0")
        assert sorted(link.name for link in await nsc.pod.links()) == ["blue-0", "red-0"]
        assert (await nsc.ping(red)).ok
        assert (await nsc.ping(blue)).ok
        way = await nsc.pod.route_get("10.2.0.0")
        assert way is not None
        assert way.interface == "blue-0"
        await nsc.close(red)
        assert (await nsc.ping(blue)).ok

    run(mode, scenario)


def test_two_nodes_share_the_registry_and_keep_to_their_own_forwarder() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = await cluster.node("node-1"), await cluster.node("node-2")
        await one.endpoint("nse-1", service="first")
        await two.endpoint("nse-2", service="second")
        conn = await (await one.client("nsc-1")).request("kernel://first/nsm-1")
        assert names(conn)[1:3] == ["nsmgr-node-1", "forwarder-node-1"]
        conn = await (await two.client("nsc-2")).request("kernel://second/nsm-1")
        assert names(conn)[1:3] == ["nsmgr-node-2", "forwarder-node-2"]

    run(UNIX, scenario)


@pytest.mark.parametrize("labels", [{"app": "red"}, {"app": "blue"}])
def test_labels_of_the_url_choose_the_endpoint(labels: dict[str, str]) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        service = NetworkService(name="colours", payload="IP")
        match = service.matches.add(source_selector={"app": labels["app"]})
        match.routes.add(destination_selector={"app": labels["app"]})
        for colour in ("red", "blue"):
            await node.endpoint(f"nse-{colour}", service="colours", labels={"app": colour}, matches=service)
        nsc = await node.client("nsc-1")
        for _ in range(3):
            conn = await nsc.request(f"kernel://colours/nsm-1?app={labels['app']}")
            assert conn.network_service_endpoint_name == f"nse-{labels['app']}"
            await nsc.close(conn)

    run(INPROC, scenario)


@every_mode("inproc", "memory", "unix", "tcp")
def test_an_endpoint_that_hangs_leaves_the_same_request_time_for_another(mode: Mode) -> None:
    hangs = Park()

    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1", hangs)
        await node.endpoint("nse-2", prefix="172.16.1.0/24")
        nsc = await node.client("nsc-1")
        before = await cluster.counts()
        conn = await nsc.request(URL, timeout=2.0)
        assert conn.network_service_endpoint_name == "nse-2"
        assert [call.verb for call in hangs.seen.calls][:1] == ["request"], "the other was asked first"
        asked = len(hangs.seen.of("request"))
        # It is remembered: the next one goes elsewhere at once.
        other = await nsc.request("kernel://icmp-responder/nsm-2", timeout=2.0)
        assert other.network_service_endpoint_name == "nse-2"
        assert len(hangs.seen.of("request")) == asked
        hangs.release()
        for one in (conn, other):
            await nsc.close(one)
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode("programs_simulated", "programs")
def test_an_endpoint_that_stands_still_holds_nothing_when_it_goes_on(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        still = await node.endpoint("nse-1")
        await node.endpoint("nse-2", prefix="172.16.1.0/24")
        nsc = await node.client("nsc-1")
        before = await cluster.counts()
        stand_still(still.hop)
        try:
            conn = await nsc.request(URL, timeout=5.0)
            assert conn.network_service_endpoint_name == "nse-2"
            await nsc.close(conn)
        finally:
            go_on(still.hop)
        await nothing_left(cluster, before)

    run(mode, scenario)


class Policies(Element):
    """Adds policy routes to what an endpoint answers: how many changes with every request."""

    def __init__(self) -> None:
        self.numbers = itertools.cycle([0, 2, 1, 3])

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        ip, [count] = request.connection.context.ip_context, itertools.islice(self.numbers, 1)
        del ip.policies[:]
        ip.policies.extend(policy_route(proto="6", dst_port=str(80 + at)) for at in range(count))
        return await next.request(call, request)


@every_mode("memory", "namespaces")
def test_policies_that_come_and_go_leave_the_interface(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1", Policies())
        nsc = await node.client("nsc-1")
        conn = await nsc.request(URL)
        before = [(link.name, link.index) for link in await nsc.pod.links()]
        for number in range(5):
            if number == 3:
                await cluster.kill("forwarder-node-1")
                await cluster.restart("forwarder-node-1")
                await registered(node.forwarder)
            conn = await nsc.refresh(conn)
            assert [(link.name, link.index) for link in await nsc.pod.links()] == before
            assert (await nsc.ping(conn)).ok

    run(mode, scenario)
