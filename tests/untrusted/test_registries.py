# SPDX-License-Identifier: Apache-2.0
"""Registries that lie, and registrants that spoil things for others.

Does:  lets endpoints register with addresses that nobody can dial, and services with matches that nobody can look at,
       beside good ones; lets a registry answer Finds and watches with garbage, break off, or never end. Clients of good
       endpoints are served, and errors stay clear.
Place: managers, forwarders, the candidate cache.
State: a mesh, or a registry of the test's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsm_sdk import api
from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NSE, Bound, Call, Chain, Found, Query, RegistryElement, RegistryNext, Role, registry_end
from nsm_sdk.errors import NsmError, Status, Unavailable
from nsm_sdk.registry import Candidates, Memory
from nsm_sdk.registry.discover import find_service
from nsm_sdk.registry.store import SCAN_CHUNK
from tests.untrusted.hops import Mesh, mesh
from tests.untrusted.sizes import EXAMPLES
from tests.untrusted.strategies import EXPIRES, TOKEN, messages


async def request(hops: Mesh, service: str = "svc") -> tuple[Status, Any]:
    """A client's request of a service, and its close."""
    good = {TOKEN: hops.token, EXPIRES: hops.until}
    asked = hops.request()
    asked.connection.network_service = service
    answer = await hops.throw("nsmgr", api.NETWORK_SERVICE_REQUEST, asked.SerializeToString(), good, over="grpc")
    raw = asked.connection.SerializeToString()
    await hops.throw("nsmgr", api.NETWORK_SERVICE_CLOSE, raw, good, over="grpc")
    return answer


async def register(hops: Mesh, entry: Any) -> tuple[Status, Any]:
    good = {TOKEN: hops.token, EXPIRES: hops.until}
    method = api.NS_REGISTER if isinstance(entry, NetworkService) else api.NSE_REGISTER
    return await hops.throw("registry", method, entry.SerializeToString(), good, over="grpc")


@pytest.mark.parametrize(
    "url",
    [
        "bogus:address",
        "tcp://:99999",
        "tcp://x",
        "unix://",
        "inproc://a b",
        "http://10.0.0.1",
        "unix:///a%00b",
        "x" * 3000,
    ],
)
async def test_an_endpoint_with_an_address_that_nobody_can_dial_spoils_nothing_for_others(url: str) -> None:
    async with mesh() as hops:
        for number in range(3):
            entry = NetworkServiceEndpoint(name=f"bad-{number}", network_service_names=["svc"], url=url)
            assert (await register(hops, entry))[0] is Status.OK
        for _ in range(4):
            status, error = await request(hops)
            assert status is Status.OK, error


async def test_a_forwarder_with_an_address_that_nobody_can_dial_spoils_nothing_for_others() -> None:
    async with mesh() as hops:
        entry = hops.endpoint("a-forwarder")
        entry.network_service_names[:] = ["forwarder"]
        entry.network_service_labels["forwarder"].labels["p2p"] = "true"
        entry.url = "bogus:address"
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        raw = entry.SerializeToString()
        assert (await hops.throw("nsmgr", api.NSE_REGISTER, raw, good, over="grpc"))[0] is Status.OK
        status, error = await request(hops)
        assert status is Status.OK, error


async def test_only_endpoints_that_nobody_can_dial_are_a_clear_error() -> None:
    async with mesh() as hops:
        await register(hops, NetworkService(name="lost", payload="IP"))
        await register(hops, NetworkServiceEndpoint(name="bad", network_service_names=["lost"], url="bogus:address"))
        status, error = await request(hops, "lost")
        assert status is Status.FAILED_PRECONDITION
        assert "address that cannot be used" in error.details()
        assert "bogus:address" in error.details()


@pytest.mark.parametrize(("matches", "routes"), [(33_001, 0), (1, 33_000)])
async def test_a_service_of_too_many_matches_is_not_chosen_from(matches: int, routes: int) -> None:
    service = NetworkService(name="svc", payload="IP")
    for _ in range(matches):
        service.matches.add().routes.extend([api.Destination()] * routes)

    class Knows(RegistryElement[Any]):
        async def find(
            self, call: Call, query: Query[Any], next: RegistryNext[Any]
        ) -> AsyncGenerator[Found[Any], None]:
            yield Found(service)

    bound: Any = Chain("registry", Knows()).bind(registry_end())
    candidates = Candidates(Bound(ns=bound, nse=bound))
    async with Role("hop", services=[candidates]).serving() as running:
        with pytest.raises(Unavailable, match="more matches or routes") as caught:
            await find_service(candidates, running.call(timeout=2), Connection(network_service="svc"))
        assert caught.value.hint


class Lies(RegistryElement[Any]):
    """Answers what the test says, then breaks off, ends, or never ends."""

    def __init__(self, entries: list[Any], end: str) -> None:
        self.entries = entries
        self.end = end

    async def find(self, call: Call, query: Query[Any], next: RegistryNext[Any]) -> AsyncGenerator[Found[Any], None]:
        for entry, deleted in self.entries:
            yield Found(entry, deleted)
        match self.end:
            case "break":
                raise Unavailable("gone", hint="wait")
            case "hang":
                await anyio.sleep_forever()


@settings(max_examples=EXAMPLES * 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(messages(NetworkServiceEndpoint), st.booleans()), max_size=5),
    st.lists(st.tuples(messages(NetworkService), st.booleans()), max_size=5),
    st.sampled_from(["end", "break", "hang"]),
)
def test_whatever_a_registry_answers_is_a_clear_error_or_none(nses: list[Any], nss: list[Any], end: str) -> None:
    async def main() -> None:
        ns: Any = Chain("ns", Lies(nss, end)).bind(registry_end())
        nse: Any = Chain("nse", Lies(nses, end)).bind(registry_end())
        candidates = Candidates(Bound(ns=ns, nse=nse))
        async with Role("hop", services=[candidates]).serving() as running:
            conn = Connection(network_service=nss[0][0].name if nss else "svc")
            for look in (
                lambda: find_service(candidates, running.call(timeout=0.1), conn),
                lambda: candidates.endpoint(running.call(timeout=0.1), "nse", "svc"),
                lambda: candidates.endpoints(
                    running.call(timeout=0.1), NetworkServiceEndpoint(name="x"), lambda found: found
                ),
            ):
                failure: NsmError | None = None
                try:
                    await look()
                except NsmError as error:
                    failure = error
                if failure is not None:
                    assert failure.status not in (Status.INTERNAL, Status.UNKNOWN)
                    assert failure.hint
            await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize("watch", [False, True])
async def test_a_find_of_what_no_index_knows_lets_others_have_their_turn(watch: bool) -> None:
    memory = Memory(NSE)
    chain = Chain("registry", memory)
    async with Role("registry", nse=chain).serving() as running:
        for number in range(4 * SCAN_CHUNK):
            memory.store.put(NetworkServiceEndpoint(name=f"{number}", url="tcp://10.0.0.1:1"))
        bound = running.bound.nse
        assert bound is not None
        turns = 0

        async def find() -> None:
            assert bound is not None
            query = Query(NetworkServiceEndpoint(url="nowhere"), watch)
            stream = bound.find(running.call(), query)
            try:
                async for found in stream:
                    raise AssertionError(found)
            finally:
                await stream.aclose()

        task = asyncio.ensure_future(find())
        before = memory.store.watchers
        while not task.done() and not (watch and turns > 8):
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 4
        assert memory.store.watchers == before + watch
        task.cancel()
        await asyncio.wait([task])
