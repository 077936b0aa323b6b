# SPDX-License-Identifier: Apache-2.0
"""Bad input gets a clear error that names hop, element and remedy, and leaves nothing behind.

Does:  one test for each thing that a client, an endpoint or a machine can get wrong, over transports that carry the
       error in different ways.
Place: whole meshes.
State: a cluster per test.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nsm_sdk.api import Connection, Mechanism, NetworkService, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InvalidRequest,
    NsmError,
    Status,
    Unavailable,
)
from nsm_sdk.lab import INPROC, Cluster, LabClient, Mode, Node
from nsm_sdk.testing import Park
from tests.mesh.modes import URL, every_mode, nothing_left, run, steady

MODES = ("inproc", "memory", "unix", "namespaces")


class Sends(Element):
    """A client's own element that changes what leaves."""

    def __init__(self) -> None:
        self.edit: Callable[[Request], object] = lambda request: None

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.edit(request)
        return await next.request(call, request)


async def mesh(cluster: Cluster, *elements: Element, prefix: str = "172.16.0.0/24") -> tuple[Node, LabClient]:
    """A node with an endpoint, and a client that has connected once, so that everything is warm."""
    node = await cluster.node("node-1")
    await node.endpoint("nse-1", prefix=prefix)
    nsc = await node.client("nsc-1", *elements)
    await nsc.close(await nsc.request(URL))
    return node, nsc


def says(error: NsmError, hop: str, element: str, *words: str) -> None:
    """See that the error names its place and a remedy."""
    text = str(error)
    assert error.hop == hop, text
    assert error.element.startswith(element), text
    assert error.hint, text
    for word in words:
        assert word in text


@every_mode(*MODES)
def test_unknown_service(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        _, nsc = await mesh(cluster)
        before = await cluster.counts()
        with pytest.raises(Unavailable) as caught:
            await nsc.request("kernel://no-such-service/nsm-1")
        says(caught.value, "nsmgr-node-1", "DiscoverForwarder", "'no-such-service' is not registered", "check the name")
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode(*MODES)
def test_no_matching_route(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc = await mesh(cluster)
        service = NetworkService(name="picky", payload="IP")
        match = service.matches.add(source_selector={"app": "web"})
        match.routes.add(destination_selector={"app": "db"})
        await node.endpoint("nse-2", service="picky", labels={"app": "cache"}, matches=service)
        before = await cluster.counts()
        with pytest.raises(Unavailable) as caught:
            await nsc.request("kernel://picky/nsm-1?app=web")
        says(caught.value, "forwarder-node-1", "Discover", "nse-2", "labels", "matches of the service")
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode(*MODES)
def test_a_service_without_endpoints(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc = await mesh(cluster)
        nse = await node.endpoint("nse-2", service="left")
        await nse.stop()
        before = await cluster.counts()
        with pytest.raises(Unavailable) as caught:
            await nsc.request("kernel://left/nsm-1")
        says(caught.value, "forwarder-node-1", "Discover", "no endpoint of network service 'left'", "start an endpoint")
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode("inproc")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("icmp-responder", "mechanism"),
        ("kernel://", "names no service"),
        ("kernel://icmp-responder/interface-name-too-long", "15 bytes"),
        ("kernel://icmp-responder@/nsm-1", "domain"),
        ("kernel://icmp-responder/nsm-1?a=%zz", "%"),
    ],
)
def test_malformed_url(mode: Mode, url: str, words: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        _, nsc = await mesh(cluster)
        before = await cluster.counts()
        with pytest.raises(InvalidRequest) as caught:
            await nsc.request(url)
        assert words in str(caught.value)
        assert caught.value.hint
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode(*MODES)
def test_interface_name_too_long_on_the_wire(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        sends = Sends()
        node, nsc = await mesh(cluster)
        nsc = await node.client("nsc-2", sends, pod=nsc.pod)
        sends.edit = lambda request: request.mechanism_preferences[0].parameters.update(name="sixteen-letters-")
        before = await cluster.counts()
        with pytest.raises(InvalidRequest) as caught:
            await nsc.request(URL)
        says(caught.value, "nsc-2", "KernelClient", "16 bytes", "1 to 15 bytes")
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode("memory", "namespaces", "programs")
def test_interface_name_taken(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        _, nsc = await mesh(cluster)
        conn = await nsc.request(URL)
        links = await nsc.pod.links()
        before = await steady(cluster)
        with pytest.raises(AlreadyExists) as caught:
            await nsc.request(URL)
        says(caught.value, "forwarder-node-1", "Join", "'nsm-1' exists already", "another interface name")
        await nothing_left(cluster, before)
        assert await nsc.pod.links() == links
        assert (await nsc.ping(conn)).ok

    run(mode, scenario)


@every_mode("memory", "namespaces", "programs")
@pytest.mark.parametrize("whose", ["nsc-2", "nse-1"])
def test_namespace_gone(mode: Mode, whose: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, _ = await mesh(cluster)
        nsc = await node.client("nsc-2")
        before = await cluster.counts()
        await cluster.pods[whose].remove()
        with pytest.raises(FailedPrecondition) as caught:
            await nsc.request(URL)
        says(caught.value, "forwarder-node-1", "Join", "is gone", "pod or process is still there")
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode(*MODES, "programs")
def test_pool_exhausted(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        _, nsc = await mesh(cluster, prefix="10.0.0.0/30")
        conns = [await nsc.request(f"kernel://icmp-responder/nsm-{number}") for number in range(2)]
        before = await steady(cluster)
        with pytest.raises(Exhausted) as caught:
            await nsc.request("kernel://icmp-responder/nsm-2")
        says(caught.value, "nse-1", "PointToPointIpam", "IPPool is empty", "larger or a further prefix")
        await nothing_left(cluster, before)
        await nsc.close(conns[0])
        conn = await nsc.request("kernel://icmp-responder/nsm-2")
        assert list(conn.context.ip_context.dst_ip_addrs) == ["10.0.0.0/32"]

    run(mode, scenario)


@every_mode(*MODES)
def test_path_index_out_of_range(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        sends = Sends()
        node, _ = await mesh(cluster)
        nsc = await node.client("nsc-2", sends)

        def edit(request: Request) -> None:
            request.connection.path.index = 7

        sends.edit = edit
        before = await cluster.counts()
        with pytest.raises(InvalidRequest) as caught:
            await nsc.request(URL)
        says(caught.value, "nsmgr-node-1", "UpdatePath", "path index 7 is out of range", "own segment")
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode(*MODES)
def test_id_mismatch(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        sends = Sends()
        node, _ = await mesh(cluster)
        nsc = await node.client("nsc-2", sends)

        def edit(request: Request) -> None:
            request.connection.id = "another"

        sends.edit = edit
        before = await cluster.counts()
        with pytest.raises(InvalidRequest) as caught:
            await nsc.request(URL)
        says(caught.value, "nsmgr-node-1", "UpdatePath", "'another' is not that of its current path segment", "id of")
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode(*MODES)
@pytest.mark.parametrize("where", ["mechanism", "preference"])
def test_unknown_mechanism(mode: Mode, where: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        sends = Sends()
        node, _ = await mesh(cluster)
        nsc = await node.client("nsc-2", sends, kernel=False)

        def edit(request: Request) -> None:
            carrier = Mechanism(cls="LOCAL", type="CARRIER-PIGEON")
            del request.mechanism_preferences[:]
            if where == "mechanism":
                request.connection.mechanism.CopyFrom(carrier)
            else:
                request.mechanism_preferences.append(carrier)

        sends.edit = edit
        before = await cluster.counts()
        with pytest.raises(NsmError) as caught:
            await nsc.request(URL)
        says(caught.value, "forwarder-node-1", "Join", "CARRIER-PIGEON", "supports KERNEL")
        assert caught.value.status in (Status.INVALID_ARGUMENT, Status.FAILED_PRECONDITION)
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode("inproc", "memory", "unix")
def test_expired_deadline(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, nsc = await mesh(cluster)
        await node.endpoint("slow", Park(), service="slow", prefix="10.7.0.0/24")
        before = await cluster.counts()
        with pytest.raises(DeadlineExceeded) as caught:
            await nsc.request("kernel://slow/nsm-1", timeout=0.5)
        assert caught.value.hop
        assert caught.value.hint
        with pytest.raises(DeadlineExceeded):
            await nsc.request(URL, timeout=0.0)
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode("inproc", "unix")
def test_an_error_of_the_endpoints_own_reaches_the_client_as_it_is(mode: Mode) -> None:
    class Refuses(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            raise AlreadyExists("not twice", hint="once is enough")

    async def scenario(cluster: Cluster) -> None:
        node, nsc = await mesh(cluster)
        await node.endpoint("no", Refuses(), service="no", prefix="10.7.0.0/24")
        before = await cluster.counts()
        with pytest.raises(AlreadyExists) as caught:
            await nsc.request("kernel://no/nsm-1")
        says(caught.value, "no", "Refuses", "not twice", "once is enough")
        assert caught.value.trail
        await nothing_left(cluster, before)

    run(mode, scenario)


def test_error_texts_carry_no_tokens() -> None:
    async def scenario(cluster: Cluster) -> None:
        sends = Sends()
        node, _ = await mesh(cluster)
        nsc = await node.client("nsc-2", sends)
        conn = await nsc.request(URL)
        tokens = [segment.token for segment in conn.path.path_segments]
        assert all(tokens)

        def edit(request: Request) -> None:
            request.connection.path.index = 7

        sends.edit = edit
        with pytest.raises(NsmError) as caught:
            await nsc.refresh(conn)
        error = caught.value
        text = f"{error} {error!r} {error.trail} {getattr(error, '__notes__', '')}"
        assert not [token for token in tokens if token in text]

    run(INPROC, scenario)
