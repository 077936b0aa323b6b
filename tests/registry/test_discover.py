# SPDX-License-Identifier: Apache-2.0
"""Choosing endpoints and forwarders, and the cache they are chosen from.

Does:  `Candidates`, `Discover`, `RoundRobin`, `DiscoverForwarder` against a registry that comes and goes, in virtual
       time.
Place: tests of the registry room.
State: none.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint, Request, State
from nsm_sdk.api.path import timestamp
from nsm_sdk.core import Bound, Role
from nsm_sdk.errors import (
    Cancelled,
    Exhausted,
    InvalidRequest,
    NoCandidate,
    NsmError,
    PermissionDenied,
    ProgrammingError,
    Unavailable,
)
from nsm_sdk.registry import Candidates, Discover, DiscoverForwarder, Option, RecentFailures
from nsm_sdk.registry.candidates import IDLE
from nsm_sdk.registry.failover import share
from nsm_sdk.testing import Rig, VirtualClock, rig, sample_request, settled, virtual_time
from tests.registry.test_store import nse
from tests.registry.world import Hosts, World, failing


def world(*endpoints: NetworkServiceEndpoint, service: NetworkService | None = None) -> World:
    made = World()
    made.services.put(service or NetworkService(name="service-1", payload="IP"))
    for endpoint in endpoints:
        made.endpoints.put(endpoint)
    return made


def two() -> World:
    return world(nse("nse-1", "service-1", url="tcp://nse-1:1"), nse("nse-2", "service-1", url="tcp://nse-2:1"))


def named(name: str, *, id: str = "connection-1") -> Request:
    request = sample_request(id)
    request.connection.network_service_endpoint_name = name
    return request


def again(conn: Connection, *, reselect: bool = False) -> Request:
    request = Request(connection=conn)
    if reselect:
        request.connection.state = State.RESELECT_REQUESTED
        request.connection.network_service_endpoint_name = ""
    return request


@asynccontextmanager
async def forwarder(registry: World, **settings: Any) -> AsyncGenerator[tuple[Rig, Hosts, Candidates], None]:
    """A forwarder's way to an endpoint."""
    hosts = Hosts()
    candidates = Candidates(registry.bound(), **settings)
    async with rig(Discover(candidates), hosts) as bench:
        yield bench, hosts, candidates


@asynccontextmanager
async def manager(registry: World, **settings: Any) -> AsyncGenerator[tuple[Rig, Hosts], None]:
    """A manager's way to a forwarder."""
    hosts = Hosts()
    async with rig(DiscoverForwarder(Candidates(registry.bound()), **settings), hosts) as bench:
        yield bench, hosts


# -- endpoints ---------------------------------------------------------------------------------------------------------


@virtual_time
async def test_an_endpoint_is_chosen_and_kept() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        answer = await bench.request()
        assert answer.network_service_endpoint_name == "nse-1"
        assert hosts.requests == [("tcp://nse-1:1", "nse-1")]
        answer = await bench.request(again(answer))
        assert hosts.urls == ["tcp://nse-1:1"] * 2
        await bench.close(answer)
        assert hosts.closes == ["tcp://nse-1:1"]
        assert (await bench.left()).slots == []


@virtual_time
async def test_endpoints_take_turns() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        for number in range(6):
            await bench.request(sample_request(f"connection-{number}"))
        assert sorted(hosts.urls) == ["tcp://nse-1:1"] * 3 + ["tcp://nse-2:1"] * 3


@virtual_time
async def test_the_order_may_be_given() -> None:
    class Backwards:
        without = ""

        def order(self, service: str, options: Sequence[Option]) -> Sequence[Option]:
            assert service == "service-1"
            return [option for option in reversed(options) if self.without not in option.name]

    choose, hosts = Backwards(), Hosts()
    choose.without = "none"
    async with rig(Discover(Candidates(two().bound()), choose=choose), hosts) as bench:
        for number in range(2):
            await bench.request(sample_request(f"connection-{number}"))
        assert hosts.urls == ["tcp://nse-2:1"] * 2
        choose.without = "nse"
        with pytest.raises(NoCandidate, match="none of 2 endpoints") as caught:
            await bench.request(sample_request("connection-3"))
        assert "Backwards" in caught.value.hint


@virtual_time
async def test_the_payload_comes_from_the_service() -> None:
    registry = world(nse("nse-1", "service-1", url="tcp://1:1"), service=NetworkService(name="service-1", payload="E"))
    async with forwarder(registry) as (bench, _, _):
        request = sample_request()
        with pytest.raises(NoCandidate, match="carries 'E', asked for is 'IP'"):
            await bench.request(request)
        request.connection.payload = ""
        assert (await bench.request(request)).payload == "E"


@virtual_time
async def test_a_next_try_goes_to_another_and_failures_come_last() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        hosts.behave["tcp://nse-1:1"] = failing(Unavailable("refused"))
        answer = await bench.request()
        assert answer.network_service_endpoint_name == "nse-2"
        assert hosts.urls == ["tcp://nse-1:1", "tcp://nse-2:1"]
        assert hosts.closes == ["tcp://nse-1:1"], "closed below before the next try"
        for number in range(2, 8):
            await bench.request(sample_request(f"connection-{number}"))
        assert hosts.urls[2:] == ["tcp://nse-2:1"] * 6
        del hosts.behave["tcp://nse-1:1"]
        await asyncio.sleep(61)
        for number in range(8, 12):
            await bench.request(sample_request(f"connection-{number}"))
        assert hosts.urls[8:].count("tcp://nse-1:1") == 2


@virtual_time
async def test_one_that_does_not_answer_is_not_asked_first_again() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        hosts.behave["tcp://nse-1:1"] = lambda: asyncio.sleep(3600)
        answer = await bench.request(timeout=1)
        assert answer.network_service_endpoint_name == "nse-2", "within the same request"
        assert hosts.closes == ["tcp://nse-1:1"]
        await bench.request(sample_request("connection-2"), timeout=1)
        await bench.request(sample_request("connection-3"), timeout=1)
        assert hosts.urls == ["tcp://nse-1:1", *["tcp://nse-2:1"] * 3]


@virtual_time
@pytest.mark.parametrize(("count", "hang"), [(2, 1), (3, 1), (3, 2), (4, 3), (20, 3)])
@pytest.mark.parametrize("timeout", [15.0, 1.0, math.inf])
async def test_each_candidate_gets_a_share_that_leaves_the_next_a_chance(count: int, hang: int, timeout: float) -> None:
    names = [f"nse-{number:02}" for number in range(count)]
    async with forwarder(world(*(nse(one, "service-1", url=f"tcp://{one}:1") for one in names))) as (bench, hosts, _):
        now = bench.running.runtime.clock.now
        for name in names[:hang]:
            hosts.behave[f"tcp://{name}:1"] = lambda: asyncio.sleep(3600)
            hosts.behave_close[f"tcp://{name}:1"] = lambda: asyncio.sleep(3600)
        began = now()
        answer = await bench.request(timeout=timeout)
        assert answer.network_service_endpoint_name == names[hang]
        # Without a deadline each gets as much as of one of the usual length.
        whole = timeout if timeout < math.inf else hang * 15.0
        assert now() - began < whole * (0.96 if hang == count - 1 else 0.8), "what is left is enough for a request"


@virtual_time
async def test_the_only_candidate_and_the_last_get_all_the_time() -> None:
    async def late() -> None:
        await asyncio.sleep(9)

    async with forwarder(world(nse("nse-1", "service-1", url="tcp://nse-1:1"))) as (bench, hosts, _):
        hosts.behave["tcp://nse-1:1"] = late
        await bench.request(timeout=10)
    async with forwarder(two()) as (bench, hosts, _):
        hosts.behave["tcp://nse-1:1"] = failing(Unavailable("refused"))
        hosts.behave["tcp://nse-2:1"] = late
        assert (await bench.request(timeout=10)).network_service_endpoint_name == "nse-2"


def test_shares() -> None:
    assert share(15.0, 1) == math.inf
    assert share(15.0, 2) == 7.5
    assert share(15.0, 3) == share(15.0, 50) == 5.0
    assert share(math.inf, 2) == 7.5
    assert share(0.0, 2) == 0.0


@virtual_time
async def test_the_errors_of_all() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        hosts.behave["tcp://nse-1:1"] = failing(Unavailable("refused"))
        hosts.behave["tcp://nse-2:1"] = failing(Exhausted("no address left", hint="more"))
        with pytest.raises(Exhausted, match="nse-1: refused; nse-2: no address left") as raised:
            await bench.request()
        assert raised.value.hint == "more"
        hosts.behave["tcp://nse-1:1"] = failing(ProgrammingError("bug"))
        hosts.behave["tcp://nse-2:1"] = failing(ProgrammingError("bug"))
        with pytest.raises(ProgrammingError):
            await bench.request(sample_request("connection-2"))
    only = Unavailable("refused")
    async with forwarder(world(nse("nse-1", "service-1", url="tcp://nse-1:1"))) as (bench, hosts, _):
        hosts.behave["tcp://nse-1:1"] = failing(only)
        with pytest.raises(Unavailable) as single:
            await bench.request()
        assert single.value is only
        assert (await bench.left()).slots == []


@virtual_time
async def test_what_to_get_away_from_comes_last() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        for turn in range(4):
            request = sample_request(f"connection-{turn}")
            request.connection.path.path_segments.add(name="nsmgr-2", id="x")
            request.connection.path.path_segments.add(name="nse-1", id="y")
            request.connection.state = State.RESELECT_REQUESTED
            await bench.request(request)
        assert hosts.urls == ["tcp://nse-2:1"] * 4
        hosts.behave["tcp://nse-2:1"] = failing(Unavailable("refused"))
        answer = await bench.request(request)
        assert answer.network_service_endpoint_name == "nse-1", "better than none"


@virtual_time
async def test_a_named_endpoint() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        await bench.request(named("nse-2"))
        assert hosts.requests == [("tcp://nse-2:1", "nse-2")]
        with pytest.raises(NoCandidate, match="'nse-3' is not registered"):
            await bench.request(named("nse-3", id="connection-2"))
        await bench.request(named("nse-1", id="connection-3"), url="tcp://elsewhere:1")
        assert hosts.urls[-1] == "tcp://elsewhere:1", "an address that is set already is left alone"


@virtual_time
async def test_names_that_only_contain_the_one_asked_for() -> None:
    registry = world(nse("nse-10", "service-1", url="tcp://10:1"), service=NetworkService(name="service-10"))
    registry.endpoints._matcher = type(registry.endpoints._matcher)(  # as registries before 1.11 answer
        index_keys=lambda entry: (), matches=lambda query, entry: query.name in entry.name
    )
    async with forwarder(registry) as (bench, _, _):
        with pytest.raises(NoCandidate):
            await bench.request(named("nse-1"))


@virtual_time
async def test_an_endpoint_in_use_is_found_though_the_registry_has_forgotten_it() -> None:
    registry = two()
    async with forwarder(registry) as (bench, hosts, _):
        answer = await bench.request(timeout=15)
        registry.go()
        await asyncio.sleep(1)
        began = bench.runtime.clock.now()
        answer = await bench.request(again(answer), timeout=15)
        registry.come(empty=True)
        await asyncio.sleep(10)
        answer = await bench.request(again(answer), timeout=15)
        assert bench.runtime.clock.now() - began < 13
        assert set(hosts.urls) == {"tcp://nse-1:1"}
        registry.endpoints.put(nse("nse-1", "service-1", url="tcp://moved:1"))
        await settled()
        await bench.request(again(answer), timeout=15)
        assert hosts.urls[-1] == "tcp://moved:1"


@virtual_time
async def test_a_close_of_a_connection_that_nobody_remembers() -> None:
    registry = two()
    async with forwarder(registry) as (bench, hosts, _):
        await bench.close(named("nse-2").connection)
        await bench.close(sample_request().connection)
        await bench.close(named("nse-9").connection)
        registry.hangs = True
        began = bench.runtime.clock.now()
        await bench.close(named("nse-8").connection)
        assert bench.runtime.clock.now() - began < 2
        assert hosts.closes == ["tcp://nse-2:1", "", "", ""]


@virtual_time
async def test_labels_choose_and_errors_tell_why() -> None:
    service = NetworkService(name="service-1", payload="IP")
    service.matches.add(source_selector={"app": "web"}).routes.add(destination_selector={"node": "{{.node}}"})
    registry = world(
        nse("nse-1", "service-1", url="tcp://nse-1:1", node="n1"),
        nse("nse-2", "service-1", url="tcp://nse-2:1", node="n2"),
        service=service,
    )
    async with forwarder(registry) as (bench, hosts, _):
        await bench.request(sample_request(labels={"app": "web", "node": "n2"}))
        assert hosts.urls == ["tcp://nse-2:1"]
        with pytest.raises(NoCandidate) as raised:
            await bench.request(sample_request("c-2", labels={"app": "web", "node": "n3"}))
        assert "nse-1: it has {'node': 'n1'}, asked for is {'node': 'n3'}" in raised.value.message
        assert raised.value.hint
        with pytest.raises(NoCandidate, match="no match of the service applies"):
            await bench.request(sample_request("c-3", labels={"app": "db"}))


@virtual_time
async def test_nothing_there() -> None:
    registry = world()
    async with forwarder(registry) as (bench, hosts, _):
        began = bench.runtime.clock.now()
        with pytest.raises(NoCandidate, match="no endpoint of network service 'service-1' is registered"):
            await bench.request(timeout=15)
        request = sample_request("c-2", service="service-2")
        with pytest.raises(NoCandidate, match="'service-2' is not registered"):
            await bench.request(request, timeout=15)
        request.connection.network_service = ""
        with pytest.raises(InvalidRequest, match="names no network service"):
            await bench.request(request, timeout=15)
        registry.endpoints.put(nse("nse-1", "service-1"))
        await settled()
        with pytest.raises(NoCandidate, match="it has no URL"):
            await bench.request(timeout=15)
        with pytest.raises(NoCandidate, match="without a URL"):
            await bench.request(named("nse-1"), timeout=15)
        assert bench.runtime.clock.now() == began, "discovery fails at once"
        assert hosts.requests == []
        assert registry.open == 2, "names that somebody made up are not followed"
        registry.endpoints.put(nse("nse-1", "service-1", url="tcp://nse-1:1"))
        await bench.request(timeout=15)
        assert hosts.urls == ["tcp://nse-1:1"], "a late endpoint is found"


@virtual_time
async def test_what_has_expired_is_no_candidate() -> None:
    registry = two()
    stale = nse("nse-1", "service-1", url="tcp://nse-1:1")
    async with forwarder(registry) as (bench, hosts, _):
        stale.expiration_time.CopyFrom(timestamp(bench.runtime.clock.wall() - 1))
        registry.endpoints.put(stale)
        for number in range(4):
            await bench.request(sample_request(f"c-{number}"))
        assert set(hosts.urls) == {"tcp://nse-2:1"}


# -- the cache ---------------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_registry_is_watched_and_not_asked() -> None:
    registry = two()
    async with forwarder(registry) as (bench, _, candidates):
        await bench.request()
        asked = registry.finds
        for number in range(100):
            await bench.request(sample_request(f"c-{number}"))
        assert registry.finds == asked <= 2
        assert registry.watches == registry.open == 2
        assert candidates.age(NetworkService(name="service-1")) == 0
        assert candidates.age(NetworkService(name="service-2")) is None
        assert len(candidates) == 2
    assert registry.open == 0


@virtual_time
async def test_changes_are_seen_without_asking() -> None:
    registry = two()
    async with forwarder(registry) as (bench, hosts, _):
        await bench.request()
        await settled()
        asked = registry.finds
        registry.endpoints.remove("nse-1")
        registry.endpoints.remove("nse-2")
        registry.endpoints.put(nse("nse-3", "service-1", url="tcp://nse-3:1"))
        await settled()
        await bench.request(sample_request("c-2"))
        assert hosts.urls[-1] == "tcp://nse-3:1"
        assert registry.finds == asked


@virtual_time
async def test_what_nobody_uses_is_dropped() -> None:
    registry = two()
    async with forwarder(registry) as (bench, _, candidates):
        await bench.request()
        await asyncio.sleep(2 * IDLE)
        assert len(candidates) == 0
        await settled()
        assert registry.open == 0
        await bench.request(sample_request("c-2"))
        assert len(candidates) == 2


@virtual_time
async def test_a_registry_that_is_away_is_waited_for_half_the_time() -> None:
    registry = two()
    registry.go()
    async with forwarder(registry) as (bench, hosts, candidates):
        began = bench.runtime.clock.now()
        with pytest.raises(Unavailable, match="registry cannot be reached") as raised:
            await bench.request(timeout=8)
        assert bench.runtime.clock.now() - began == pytest.approx(4, abs=0.3)
        assert not isinstance(raised.value, NoCandidate)
        assert len(candidates) == 0
        task = asyncio.create_task(bench.request(timeout=8))
        await asyncio.sleep(1)
        registry.come()
        await task
        assert hosts.requests
        assert bench.runtime.clock.now() - began < 7


@virtual_time
async def test_a_registry_that_hangs_is_waited_for_half_the_time() -> None:
    registry = two()
    registry.hangs = True
    async with forwarder(registry) as (bench, _, _):
        began = bench.runtime.clock.now()
        with pytest.raises(Unavailable, match="registry cannot be reached"):
            await bench.request(timeout=8)
        assert bench.runtime.clock.now() - began == pytest.approx(4, abs=0.3)
        with pytest.raises(Unavailable):
            await bench.request()
        assert bench.runtime.clock.now() - began < 21, "without a deadline it waits a limited time"


@virtual_time
async def test_a_registry_that_refuses_says_so_at_once() -> None:
    registry = two()
    registry.go(PermissionDenied("not you"))
    async with forwarder(registry) as (bench, _, _):
        with pytest.raises(PermissionDenied):
            await bench.request(timeout=8)
        assert bench.runtime.clock.now() < 0.1
        await asyncio.sleep(100)
        assert registry.watches < 100, "watching again and again does not storm"


@virtual_time
async def test_while_the_registry_is_away_what_is_known_counts() -> None:
    registry = two()
    soon = nse("nse-1", "service-1", url="tcp://nse-1:1")
    registry.endpoints.remove("nse-2")
    async with forwarder(registry) as (bench, hosts, candidates):
        soon.expiration_time.CopyFrom(timestamp(bench.runtime.clock.wall() + 60))
        registry.endpoints.put(soon)
        await bench.request(timeout=8)
        await settled()
        registry.go(Cancelled("shutting down"))
        await asyncio.sleep(90)
        await bench.request(sample_request("c-2"), timeout=8)
        assert hosts.urls == ["tcp://nse-1:1"] * 2, "it cannot refresh its registration either"
        age = candidates.age(NetworkServiceEndpoint(network_service_names=["service-1"]))
        assert age == pytest.approx(90, abs=1)


@virtual_time
async def test_what_was_lost_while_the_stream_was_broken_is_found_out() -> None:
    registry = two()
    async with forwarder(registry) as (bench, hosts, candidates):
        await bench.request(timeout=8)
        await settled()
        registry.go()
        registry.endpoints.remove("nse-1")
        await asyncio.sleep(5)
        registry.come()
        await asyncio.sleep(5)
        for number in range(4):
            await bench.request(sample_request(f"c-{number}"), timeout=8)
        assert set(hosts.urls[1:]) == {"tcp://nse-2:1"}
        assert candidates.age(NetworkServiceEndpoint(network_service_names=["service-1"])) == 0


@virtual_time
async def test_an_entry_that_goes_between_find_and_watch_is_found_out() -> None:
    registry = two()
    async with forwarder(registry) as (bench, _, candidates):
        await bench.request(timeout=8)
        await settled()
        registry.go()
        await asyncio.sleep(1)
        # The new stream will not tell of nse-1, but the first Find still does.
        registry.endpoints.remove("nse-1")
        registry.come()
        registry.also = [[nse("nse-1", "service-1")]]
        service = NetworkServiceEndpoint(network_service_names=["service-1"])
        await asyncio.sleep(10)
        assert registry.also == [], "it was asked for"
        assert candidates.age(service) == 0
        assert await candidates.endpoints(bench.call(), service, lambda found: [one.name for one in found]) == ["nse-2"]


@virtual_time
async def test_a_dialled_registry_and_none() -> None:
    registry = two()
    hosts = Hosts()
    async with rig(Discover(Candidates(registry.bound)), hosts) as bench:
        await bench.request()
    async with rig(Discover(Candidates(Bound())), hosts) as bench:
        with pytest.raises(Unavailable, match="no registry of network services"):
            await bench.request()
    loose = Candidates(registry.bound())
    async with Role("r").serving(clock=VirtualClock()) as running:
        with pytest.raises(ProgrammingError):
            await loose.service(running.call(), "service-1")


# -- forwarders --------------------------------------------------------------------------------------------------------


def node() -> World:
    return world(
        nse("fwd-1", "forwarder", url="tcp://fwd-1:1", p2p="true"),
        nse("fwd-2", "forwarder", url="tcp://fwd-2:1", p2p="true"),
        nse("nse-1", "service-1", url="tcp://nse-1:1"),
    )


@virtual_time
async def test_a_forwarder_is_kept() -> None:
    async with manager(node()) as (bench, hosts):
        answer = await bench.request()
        for _ in range(5):
            answer = await bench.request(again(answer))
        await bench.close(answer)
        assert hosts.urls == ["tcp://fwd-1:1"] * 6
        assert hosts.closes == ["tcp://fwd-1:1"]
        assert (await bench.left()).slots == []


@virtual_time
async def test_another_forwarder_when_the_first_fails_at_first() -> None:
    async with manager(node()) as (bench, hosts):
        hosts.behave["tcp://fwd-1:1"] = failing(Unavailable("refused"))
        answer = await bench.request()
        assert hosts.urls == ["tcp://fwd-1:1", "tcp://fwd-2:1"]
        assert hosts.closes == ["tcp://fwd-1:1"]
        del hosts.behave["tcp://fwd-1:1"]
        hosts.behave["tcp://fwd-2:1"] = failing(Unavailable("refused"))
        with pytest.raises(Unavailable):
            await bench.request(again(answer))
        assert hosts.urls[2:] == ["tcp://fwd-2:1"], "an established connection is not moved by a refresh"


@virtual_time
async def test_selecting_anew_clears_the_preference() -> None:
    async with manager(node()) as (bench, hosts):
        answer = await bench.request()
        answer.path.path_segments.add(name="fwd-1", id="x")
        answer = await bench.request(again(answer, reselect=True))
        assert hosts.urls == ["tcp://fwd-1:1", "tcp://fwd-2:1"]
        assert hosts.closes == ["tcp://fwd-1:1"]
        await bench.request(again(answer))
        assert hosts.urls[-1] == "tcp://fwd-2:1"


@virtual_time
async def test_a_manager_that_was_restarted_keeps_the_forwarder_of_the_path() -> None:
    async with manager(node()) as (bench, hosts):
        request = sample_request()
        request.connection.path.path_segments.add(name="fwd-2", id="x")
        await bench.request(request)
        assert hosts.urls == ["tcp://fwd-2:1"]
    async with manager(node()) as (bench, hosts):
        await bench.close(request.connection)
        await bench.close(sample_request("c-2").connection)
        assert hosts.closes == ["tcp://fwd-2:1", ""]


@virtual_time
async def test_a_forwarder_that_moved_or_is_not_listed_yet() -> None:
    registry = node()
    async with manager(registry) as (bench, hosts):
        answer = await bench.request(timeout=15)
        registry.endpoints.put(nse("fwd-1", "forwarder", url="tcp://moved:1", p2p="true"))
        await settled()
        answer = await bench.request(again(answer), timeout=15)
        registry.endpoints.remove("fwd-1")
        await settled()
        await bench.request(again(answer), timeout=15)
        assert hosts.urls == ["tcp://fwd-1:1", "tcp://moved:1", "tcp://moved:1"]


@virtual_time
async def test_only_forwarders_of_this_node() -> None:
    async with manager(node(), manager=lambda: "tcp://fwd-2") as (bench, hosts):
        await bench.request()
        assert hosts.urls == ["tcp://fwd-2:1"]


@virtual_time
async def test_no_forwarder() -> None:
    registry = world()
    async with manager(registry) as (bench, _):
        with pytest.raises(NoCandidate, match=r"no forwarder .'forwarder'. is registered at this manager"):
            await bench.request()
        service = NetworkService(name="service-1", payload="IP")
        service.matches.add().routes.add()
        registry.services.put(service)
        registry.endpoints.put(nse("fwd-1", "forwarder", url="tcp://fwd-1:1", mode="x"))
        await settled()
        with pytest.raises(NoCandidate) as raised:
            await bench.request()
        assert "fwd-1: it has {'mode': 'x'}; asked for is {'p2p': 'true'}" in raised.value.message
        with pytest.raises(NoCandidate, match="'service-9' is not registered"):
            await bench.request(sample_request(service="service-9"))


# -- failures ----------------------------------------------------------------------------------------------------------


def test_failures_are_forgotten() -> None:
    failures = RecentFailures()
    a, b, c = (Option(name, f"tcp://{name}:1") for name in "abc")
    failures.add("a", 0)
    assert failures.order([a, b, a, c], 1) == [b, c, a]
    assert failures.order([a, b, c], 1, avoid=["b"]) == [c, a, b]
    assert failures.order([a, b, c], 61) == [a, b, c]
    failures.add("b", 61)
    failures.forgive("b")
    assert failures.order([a, b, c], 61) == [a, b, c]
    for number in range(5000):
        failures.add(str(number), 0)
    assert len(failures._when) <= 4096


@virtual_time
async def test_no_time_left_is_no_time_for_another() -> None:
    async with forwarder(two()) as (bench, hosts, _):
        clock = bench.running.runtime.clock

        async def blocks() -> None:
            # Not even cancellation ends it in its share.
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(2)
            raise Unavailable("refused")

        hosts.behave["tcp://nse-1:1"] = blocks
        began = clock.now()
        with pytest.raises(NsmError):
            await bench.next.request(bench.call(timeout=1), sample_request())
        assert clock.now() - began == 2
        assert hosts.urls == ["tcp://nse-1:1"]
        await settled()
