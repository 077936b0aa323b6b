# SPDX-License-Identifier: Apache-2.0
"""A mesh of four hops that anybody may throw anything at.

Does:  serves registry, manager, forwarder and endpoint in this process, each over gRPC and in process, with an endpoint
       registered; `throw` sends raw bytes as a call of any method, without any of our own client code in between, and
       answers the status; `left` is what the hops hold.
Place: tests of untrusted input.
State: the hops of one test.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio

from nsm_sdk import api, chains
from nsm_sdk.api import Connection, Method, NetworkService, NetworkServiceEndpoint, PathSegment, Request
from nsm_sdk.api.tokens import format_time
from nsm_sdk.core import Call, Element, Role, Running
from nsm_sdk.elements import Begin, Monitor
from nsm_sdk.errors import NsmError, Status
from nsm_sdk.ipam import PointToPointIpam
from nsm_sdk.mechanisms import KernelDatapath, KernelServer, Mechanisms
from nsm_sdk.netlink import FakeNetlink
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.transport import Dialer, listen
from nsm_sdk.transport.offers import asked, offers
from tests.run import unique

HOPS = ("registry", "nsmgr", "forwarder", "nse")
TIME = 3.0
"""Seconds that a call gets."""


def methods(hop: str) -> list[Method[Any, Any]]:
    """The methods that a hop offers."""
    registering: list[Any] = [
        api.NS_REGISTER,
        api.NS_UNREGISTER,
        api.NS_FIND,
        api.NSE_REGISTER,
        api.NSE_UNREGISTER,
        api.NSE_FIND,
    ]
    connecting: list[Any] = [api.NETWORK_SERVICE_REQUEST, api.NETWORK_SERVICE_CLOSE, api.MONITOR_CONNECTIONS]
    found: list[Any] = {"registry": registering, "nsmgr": connecting + registering}.get(hop, connecting)
    return found


@dataclass
class Mesh:
    """The four hops."""

    running: dict[str, Running]
    channels: dict[str, grpc.aio.Channel]
    token: str
    until: str
    pool: PointToPointIpam
    datapath: KernelDatapath
    netlink: FakeNetlink
    asides: list[Running] = field(default_factory=list)

    async def throw(
        self,
        hop: str,
        method: Method[Any, Any],
        raw: bytes,
        metadata: Mapping[str, str],
        *,
        over: str,
        moment: float = 0.02,
    ) -> tuple[Status, Any]:
        """Status of the call, and its error; a stream is read for a moment of so many seconds."""
        if over == "grpc":
            return await self._grpc(hop, method, raw, metadata, moment)
        return await self._inproc(hop, method, raw, metadata, moment)

    async def _grpc(
        self, hop: str, method: Method[Any, Any], raw: bytes, metadata: Mapping[str, str], moment: float
    ) -> tuple[Status, Any]:
        pairs = list(metadata.items())
        channel: Any = self.channels[hop]
        try:
            if method.server_streaming:
                call = channel.unary_stream(method.path)(raw, metadata=pairs, timeout=TIME)
                with anyio.move_on_after(moment):
                    async for _ in call:
                        pass
                call.cancel()
            else:
                await channel.unary_unary(method.path)(raw, metadata=pairs, timeout=TIME)
        except grpc.aio.AioRpcError as error:
            return Status(error.code().value[0]), error
        return Status.OK, ""

    async def _inproc(
        self, hop: str, method: Method[Any, Any], raw: bytes, metadata: Mapping[str, str], moment: float
    ) -> tuple[Status, Any]:
        running = self.running[hop]
        offer = offers(running.bound)[method.path]

        async def run(deadline: float) -> None:
            call = Call(running.runtime, metadata=dict(metadata), deadline=deadline, size=len(raw))
            if offer.unary is not None:
                await offer.unary(call, asked(method, raw))
            elif offer.stream is not None:
                async with aclosing(offer.stream(call, asked(method, raw))) as stream:
                    with anyio.move_on_after(moment):
                        async for _ in stream:
                            pass

        try:
            await running.runtime.serve(run, TIME, method.name)
        except NsmError as error:
            return error.status, error
        return Status.OK, ""

    def request(self, to: str = "nsmgr", number: int = 0) -> Request:
        """A good request, as a client would send it."""
        conn = Connection(id=f"good-{number}", network_service="svc", payload="IP")
        conn.path.path_segments.append(PathSegment(name="nsc", id=conn.id, token=self.token))
        if to in ("forwarder", "nse"):
            conn.network_service_endpoint_name = "nse"
        request = Request(connection=conn)
        mechanism = request.mechanism_preferences.add(cls="LOCAL", type="KERNEL")
        mechanism.parameters.update(name=f"nsm-{number}", inodeURL="file:///run/netns/client")
        if to == "nse":
            request.connection.mechanism.CopyFrom(mechanism)
        return request

    def endpoint(self, name: str = "other") -> NetworkServiceEndpoint:
        """A good registration."""
        entry = NetworkServiceEndpoint(name=name, network_service_names=["svc"], url="inproc://nobody")
        entry.network_service_labels["svc"].labels["app"] = "x"
        return entry

    def good(self, hop: str, method: Method[Any, Any]) -> Any:
        """A good message for a method."""
        match method:
            case api.NETWORK_SERVICE_REQUEST:
                return self.request(hop)
            case api.NETWORK_SERVICE_CLOSE:
                return self.request(hop).connection
            case api.MONITOR_CONNECTIONS:
                return api.Selector(path_segments=[PathSegment(name="nsc", id="good-0")])
            case api.NS_REGISTER | api.NS_UNREGISTER:
                service = NetworkService(name="extra", payload="IP")
                match = service.matches.add(source_selector={"app": "{{ .app }}"})
                match.routes.add(destination_selector={"app": "{{ .app }}"})
                return service
            case api.NS_FIND:
                return api.NetworkServiceQuery(network_service=NetworkService(name="svc"), watch=True)
            case api.NSE_FIND:
                return api.NetworkServiceEndpointQuery(network_service_endpoint=self.endpoint("nse"), watch=True)
        return self.endpoint()

    def held(self) -> dict[str, Any]:
        """What the hops hold of connections; empty when they are at rest."""
        found: dict[str, Any] = {}
        for name, running in self.running.items():
            begin = running.find(Begin)
            if begin is not None and len(begin):
                found[f"{name}: records"] = begin.slots()
            hub = next(
                (layer.hub for chain in running.chains for layer in chain.walk() if isinstance(layer, Monitor)), None
            )
            if hub is not None and len(hub):
                found[f"{name}: connections shown"] = len(hub)
            tasks = {what: count for what, count in running.runtime.running.items() if what.startswith("begin")}
            if tasks:
                found[f"{name}: tasks"] = tasks
            calls = running.runtime.calls - len(running.runtime._streams)
            if calls:
                found[f"{name}: calls"] = calls
        if self.free() != 256:
            found["addresses taken"] = 256 - self.free()
        if joined := list(self.datapath.ids()):
            found["joined"] = joined
        if links := [link for space in self.netlink._spaces.values() for link in space.links() if link.alias]:
            found["links"] = links
        return found

    async def shown(self, hop: str) -> list[Connection]:
        """The connections that a hop shows to those who watch it, now."""
        running = self.running[hop]
        assert running.bound.monitor is not None
        async with aclosing(running.bound.monitor.watch(running.call(), api.Selector())) as events:
            return list((await anext(events)).connections.values())

    def free(self) -> int:
        """Addresses that the endpoint has left."""
        return sum(pool.size for pool in self.pool._supply.pools)


@asynccontextmanager
async def mesh(make: type[TokenGenerator] = TokenGenerator, *elements: Element) -> AsyncGenerator[Mesh, None]:
    """The four hops, served until the end of the block. `elements` stand above all else in the endpoint."""
    folder = Path(tempfile.mkdtemp(prefix=unique("untrusted")))
    mark = unique("u")
    try:
        async with AsyncExitStack() as stack:

            def identity(role: str, name: str) -> tuple[TokenGenerator, Dialer]:
                tokens = make(Insecure(role, name))
                return tokens, Dialer(tokens, dial_timeout=0.2)

            async def serve(name: str, role: Role) -> Running:
                return await stack.enter_async_context(
                    role.serving(listen=[listen(f"inproc://{mark}-{name}"), listen(f"unix://{folder}/{name}")])
                )

            running: dict[str, Running] = {}
            asides: list[Running] = []
            tokens, dial = identity("registry", "registry")
            running["registry"] = await serve("registry", chains.registry("registry", tokens=tokens, services=[tokens]))
            tokens, dial = identity("nsmgr", "nsmgr")
            manager = f"inproc://{mark}-nsmgr"
            running["nsmgr"] = await serve(
                "nsmgr",
                chains.nsmgr(
                    "nsmgr",
                    url=manager,
                    dial=dial,
                    tokens=tokens,
                    registry=running["registry"].urls[0],
                    services=[tokens, dial],
                ),
            )
            netlink = FakeNetlink(create=True)
            datapath = KernelDatapath(netlink, name="fwd")
            tokens, dial = identity("forwarder", "fwd")
            running["forwarder"] = await serve(
                "forwarder",
                chains.forwarder(
                    "fwd",
                    manager=manager,
                    dial=dial,
                    tokens=tokens,
                    datapath=datapath,
                    services=[tokens, dial, datapath],
                ),
            )
            pool = PointToPointIpam("172.16.0.0/24")
            tokens, dial = identity("nse", "nse")
            running["nse"] = await serve(
                "nse",
                chains.nse(
                    "nse",
                    *elements,
                    pool,
                    Mechanisms(KERNEL=KernelServer(namespace="file:///run/netns/endpoint")),
                    tokens=tokens,
                    services=[tokens],
                ),
            )
            for name, service, url in (
                ("fwd", "forwarder", running["forwarder"].urls[0]),
                ("nse", "svc", running["nse"].urls[0]),
            ):
                tokens, dial = identity("x", name)
                aside = await stack.enter_async_context(
                    chains.registrant(name, manager=manager, dial=dial, services=[tokens, dial]).serving()
                )
                asides.append(aside)
                assert aside.bound.ns is not None
                assert aside.bound.nse is not None
                if service != "forwarder":
                    await aside.bound.ns.register(aside.call(timeout=5), NetworkService(name=service, payload="IP"))
                entry = NetworkServiceEndpoint(name=name, network_service_names=[service], url=url)
                entry.network_service_labels[service].labels["p2p"] = "true"
                await aside.bound.nse.register(aside.call(timeout=5), entry)
            channels = {}
            for name in HOPS:
                channels[name] = await stack.enter_async_context(
                    grpc.aio.insecure_channel(f"unix:{folder}/{name}", options=[("grpc.max_metadata_size", 1 << 20)])
                )
            token, until = make(Insecure("nsc", "nsc")).token()
            yield Mesh(running, channels, token, format_time(until), pool, datapath, netlink, asides)
    finally:
        shutil.rmtree(folder)
