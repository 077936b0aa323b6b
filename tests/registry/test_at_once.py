# SPDX-License-Identifier: Apache-2.0
"""What has been registered is there for the next Request.

Does:  registers, moves and takes out through a hop whose Find streams say nothing of it for a long while, and requests
       at once; and lets a hop that has heard nothing at all find out when it reaches nobody.
Place: `UpdateCandidates`, and the elements that choose.
State: none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NS, NSE, Bound, Call, Chain, Found, Kind, Query, RegistryElement, RegistryNext, registry_end
from nsm_sdk.errors import NoCandidate, NotReached, NsmError
from nsm_sdk.registry import (
    Begin,
    Candidates,
    Discover,
    DiscoverForwarder,
    LocalBypass,
    Memory,
    MemoryStore,
    UpdateCandidates,
)
from nsm_sdk.testing import Rig, rig, sample_request, virtual_time
from tests.registry.test_store import nse
from tests.registry.world import Hosts, failing

MANAGER = "tcp://manager:1"


class Deaf(RegistryElement[Any]):
    """Find streams say what there is, and nothing of what comes."""

    async def find(self, call: Call, query: Query[Any], next: RegistryNext[Any]) -> AsyncGenerator[Found[Any], None]:
        async with aclosing(next.find(call, Query(query.entry))) as stream:
            async for found in stream:
                yield found
        if query.watch:
            await anyio.sleep_forever()


class Hop:
    """A manager: registries, and a way to a forwarder."""

    def __init__(
        self,
        bench: Rig,
        hosts: Hosts,
        candidates: Candidates,
        services: RegistryNext[Any],
        endpoints: RegistryNext[Any],
    ) -> None:
        self.bench = bench
        self.hosts = hosts
        self.candidates = candidates
        self.services = services
        self.endpoints = endpoints

    def call(self) -> Call:
        return Call(self.bench.runtime, deadline=self.bench.runtime.clock.now() + 5)

    async def register(self, name: str, url: str, service: str = "forwarder") -> None:
        await self.endpoints.register(self.call(), nse(name, service, url=url))

    async def unregister(self, name: str) -> None:
        await self.endpoints.unregister(self.call(), NetworkServiceEndpoint(name=name))

    async def request(self, number: int) -> str:
        """Where the Request goes in the end."""
        await self.bench.request(sample_request(f"c{number}"), timeout=5)
        return self.hosts.urls[-1]


@asynccontextmanager
async def manager(*, updates: bool = True) -> AsyncGenerator[Hop, None]:
    bypass = LocalBypass(MANAGER)
    ns: MemoryStore[NetworkService] = MemoryStore(NS)
    endpoints: MemoryStore[NetworkServiceEndpoint] = MemoryStore(NSE)
    lookup = Bound(
        ns=Chain("ns", Deaf(), Memory(NS, ns)).bind(registry_end()),
        nse=Chain("nse", Deaf(), bypass, Memory(NSE, endpoints)).bind(registry_end()),
    )
    candidates, hosts = Candidates(lookup), Hosts()

    def chain(kind: Kind[Any], *below: RegistryElement[Any], url: str = "") -> RegistryNext[Any]:
        update = [UpdateCandidates(kind, candidates, manager=url)] if updates else []
        return Chain(kind.label, Begin(kind), *update, *below).bind(registry_end())

    async with rig(DiscoverForwarder(candidates, manager=MANAGER), hosts) as bench:
        hop = Hop(
            bench, hosts, candidates, chain(NS, Memory(NS, ns)), chain(NSE, bypass, Memory(NSE, endpoints), url=MANAGER)
        )
        await hop.services.register(hop.call(), NetworkService(name="service-1", payload="IP"))
        await hop.register("forwarder-1", "tcp://forwarder-1:1")
        assert await hop.request(0) == "tcp://forwarder-1:1"
        yield hop


@virtual_time
async def test_one_that_comes_is_chosen_and_one_that_goes_is_not() -> None:
    async with manager() as hop:
        await hop.register("forwarder-2", "tcp://forwarder-2:1")
        await hop.unregister("forwarder-1")
        assert [await hop.request(number) for number in range(1, 4)] == ["tcp://forwarder-2:1"] * 3
        assert set(hop.hosts.urls[1:]) == {"tcp://forwarder-2:1"}
        await hop.unregister("forwarder-2")
        with pytest.raises(NoCandidate):
            await hop.request(4)
        await hop.register("forwarder-1", "tcp://forwarder-1:1")
        assert await hop.request(5) == "tcp://forwarder-1:1"


@virtual_time
async def test_one_that_has_moved_is_asked_at_its_new_address_only() -> None:
    async with manager() as hop:
        await hop.register("forwarder-1", "tcp://forwarder-1:2")
        assert await hop.request(1) == "tcp://forwarder-1:2"
        assert hop.hosts.urls[1:] == ["tcp://forwarder-1:2"]


@virtual_time
async def test_one_that_serves_something_else_now_is_not_chosen() -> None:
    async with manager() as hop:
        await hop.register("forwarder-2", "tcp://forwarder-2:1")
        await hop.register("forwarder-1", "tcp://forwarder-1:1", service="other")
        assert await hop.request(1) == "tcp://forwarder-2:1"
        assert hop.hosts.urls[1:] == ["tcp://forwarder-2:1"]


@virtual_time
async def test_a_service_that_is_registered_again_is_as_it_is_now() -> None:
    async with manager() as hop:
        await hop.services.register(hop.call(), NetworkService(name="service-1", payload="ETHERNET"))
        request = sample_request("c1")
        request.connection.payload = "ETHERNET"
        await hop.bench.request(request, timeout=5)
        await hop.services.unregister(hop.call(), NetworkService(name="service-1"))
        with pytest.raises(NoCandidate, match="not registered"):
            await hop.request(2)


@virtual_time
async def test_one_that_has_moved_to_another_manager_stays_when_the_former_one_ends() -> None:
    async with manager() as hop:
        query = NetworkServiceEndpoint(network_service_names=["service-1"])
        await hop.register("nse-1", "tcp://nse-1:1", "service-1")
        await hop.register("nse-2", "tcp://nse-2:1", "service-1")
        assert await hop.candidates.endpoints(hop.call(), query, len) == 2
        moved = nse("nse-1", "service-1", url="tcp://manager-2:1")
        hop.candidates.registered(NSE, moved)
        await hop.unregister("nse-1")
        await hop.unregister("unknown")
        assert await hop.candidates.endpoints(hop.call(), query, len) == 2
        await hop.unregister("nse-2")
        assert await hop.candidates.endpoints(hop.call(), query, len) == 1


@virtual_time
async def test_a_registration_that_failed_is_not_known() -> None:
    class Refuse(RegistryElement[Any]):
        async def register(self, call: Call, entry: Any, next: RegistryNext[Any]) -> Any:
            raise NsmError("no")

    store: MemoryStore[NetworkServiceEndpoint] = MemoryStore(NSE)
    store.put(nse("nse-1", "service-1", url="tcp://nse-1:1"))
    candidates = Candidates(Bound(nse=Chain("nse", Deaf(), Memory(NSE, store)).bind(registry_end())))
    chain = Chain("nse", Begin(NSE), UpdateCandidates(NSE, candidates), Refuse()).bind(registry_end())
    async with rig(Discover(candidates), Hosts()) as bench:
        call = Call(bench.runtime, deadline=5)
        query = NetworkServiceEndpoint(network_service_names=["service-1"])
        assert await candidates.endpoints(call, query, len) == 1
        with pytest.raises(NsmError):
            await chain.register(call, nse("nse-2", "service-1", url="tcp://nse-2:1"))
        assert await candidates.endpoints(call, query, len) == 1


@virtual_time
async def test_who_heard_nothing_asks_when_it_reaches_nobody() -> None:
    async with manager(updates=False) as hop:
        hop.hosts.behave["tcp://forwarder-1:1"] = failing(NotReached("nobody answers"))
        await hop.register("forwarder-1", "tcp://forwarder-1:2")
        assert await hop.request(1) == "tcp://forwarder-1:2"
        hop.hosts.behave["tcp://forwarder-1:2"] = failing(NotReached("nobody answers"))
        await hop.unregister("forwarder-1")
        await hop.register("forwarder-2", "tcp://forwarder-2:1")
        assert await hop.request(2) == "tcp://forwarder-2:1"


@virtual_time
async def test_an_endpoint_that_moved_is_found_by_a_forwarder_that_has_not_heard_of_it() -> None:
    store: MemoryStore[NetworkServiceEndpoint] = MemoryStore(NSE)
    services: MemoryStore[NetworkService] = MemoryStore(NS)
    services.put(NetworkService(name="service-1", payload="IP"))
    store.put(nse("nse-1", "service-1", url="tcp://nse-1:1"))
    registry = Bound(
        ns=Chain("ns", Deaf(), Memory(NS, services)).bind(registry_end()),
        nse=Chain("nse", Deaf(), Memory(NSE, store)).bind(registry_end()),
    )
    hosts = Hosts()
    async with rig(Discover(Candidates(registry)), hosts) as bench:
        await bench.request(sample_request("c0"), timeout=5)
        hosts.behave["tcp://nse-1:1"] = failing(NotReached("nobody answers"))
        store.put(nse("nse-1", "service-1", url="tcp://nse-1:2"))
        await bench.request(sample_request("c1"), timeout=5)
        assert hosts.urls[-1] == "tcp://nse-1:2"
        # The next one knows it by now.
        await bench.request(sample_request("c2"), timeout=5)
        assert hosts.urls.count("tcp://nse-1:1") == 2
        store.remove("nse-1")
        hosts.behave["tcp://nse-1:2"] = failing(NotReached("nobody answers"))
        with pytest.raises(NotReached):
            await bench.request(sample_request("c3"), timeout=5)
