# SPDX-License-Identifier: Apache-2.0
"""Resume: what a client asks its manager for, what it takes up, and what it lets go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from nsm_sdk.api import Connection, ConnectionEvent, EventType, Mechanism, Request, Selector, State
from nsm_sdk.core import Bound, Call, Chain, WatchNext
from nsm_sdk.elements import Begin, ClientUrl, Refresh, UpdatePath
from nsm_sdk.errors import Internal, NotReached, NsmError, PermissionDenied, Unavailable, Unimplemented
from nsm_sdk.heal import Heal, Liveness, Probe, Resume, Target, Verdict, find_connections, take_over
from nsm_sdk.testing import (
    FailTimes,
    Rig,
    VirtualClock,
    current_clock,
    rig,
    virtual_time,
)
from tests.heal.world import Flows, Nse, World, client

MANAGER = "inproc://manager"


def manager_view(conn_id: str = "c1", **changes: object) -> Connection:
    """A connection as the manager knows it, that a client called `nsc` has left."""
    conn = Connection(id=f"m-{conn_id}", network_service="svc", network_service_endpoint_name="nse-1", state=State.UP)
    conn.path.index = 1
    conn.path.path_segments.add(name="nsc", id=conn_id)
    conn.path.path_segments.add(name="manager", id=f"m-{conn_id}")
    conn.mechanism.type = "KERNEL"
    conn.mechanism.parameters.update(name="nsm-1", inodeURL="file:///proc/99999/ns/net")
    conn.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
    conn.labels["from"] = "before"
    conn.payload = "IP"
    for name, value in changes.items():
        setattr(conn, name, value)
    return conn


@dataclass(slots=True)
class Manager:
    """Tells of `known`, or raises, or says nothing; counts who asks."""

    known: list[Connection] = field(default_factory=list)
    error: NsmError | None = None
    silent: bool = False
    asked: int = 0

    async def watch(self, call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if not self.silent:
            event = ConnectionEvent(type=EventType.INITIAL_STATE_TRANSFER)
            for conn in self.known:
                event.connections[conn.id].CopyFrom(conn)
            yield event
        await VirtualClock().advance(10_000)

    def dial(self, url: str) -> Bound:
        assert url == MANAGER
        return Bound(monitor=WatchNext(self.watch))


def asking(**changes: object) -> Request:
    """What the client asks for after its restart."""
    mechanism = Mechanism(type="KERNEL", parameters={"name": "nsm-1"})
    request = Request(connection=Connection(id="c1", network_service="svc"), mechanism_preferences=[mechanism])
    request.connection.labels["now"] = "x"
    for name, value in changes.items():
        setattr(request.connection, name, value)
    return request


@asynccontextmanager
async def restarted(manager: Manager, probe: Probe | None = None, *below: FailTimes) -> AsyncGenerator[Rig, None]:
    """A client that has just come back."""
    heal = Heal(probe, liveness=Liveness(interval=1000.0, timeout=1.0), seed=1)
    resume = Resume("nsc", manager=MANAGER, dial=manager.dial, heal=heal, namespace="file:///run/netns/here")
    chain = Chain("nsc", resume, UpdatePath("nsc"), Begin(merges=True), Refresh(), ClientUrl(MANAGER), heal, *below)
    async with rig(chain, clock=current_clock()) as bench:
        yield bench


def sent(bench: Rig) -> Connection:
    """The last connection that left."""
    return bench.seen.calls[-1].connection


class Says(Probe):
    """A probe with one answer."""

    def __init__(self, alive: bool | None) -> None:
        self.alive = alive

    async def check(self, target: Target, timeout: float) -> Verdict:
        return Verdict(self.alive)


@virtual_time
async def test_what_an_earlier_run_has_left_is_requested_as_it_was() -> None:
    async with restarted(Manager([manager_view("other"), manager_view()])) as bench:
        conn = await bench.request(asking(), timeout=5)
        assert (conn.id, conn.path.index) == ("c1", 0)
        assert [segment.id for segment in sent(bench).path.path_segments] == ["c1", "m-c1"]
        assert sent(bench).network_service_endpoint_name == "nse-1"
        assert sent(bench).context.ip_context.src_ip_addrs == ["10.0.0.1/32"]
        assert dict(sent(bench).labels) == {"from": "before", "now": "x"}
        assert sent(bench).mechanism.parameters["inodeURL"] == "file:///run/netns/here", "not that of a dead process"


@pytest.mark.parametrize(
    ("state", "probe", "anew"),
    [
        (State.UP, None, False),
        (State.DOWN, None, True),
        (State.UP, Says(True), False),
        (State.DOWN, Says(True), False),
        (State.UP, Says(False), True),
        (State.DOWN, Says(False), True),
        (State.UP, Says(None), False),
        (State.DOWN, Says(None), True),
    ],
)
def test_the_check_comes_first_and_what_is_dead_is_selected_anew(state: State, probe: Probe | None, anew: bool) -> None:
    @virtual_time
    async def scenario() -> None:
        async with restarted(Manager([manager_view(state=state)]), probe) as bench:
            await bench.request(asking(), timeout=5)
            conn = sent(bench)
            assert conn.state == (State.RESELECT_REQUESTED if anew else State.UP)
            assert conn.network_service_endpoint_name == ("" if anew else "nse-1")
            assert conn.HasField("mechanism") is not anew

    scenario()


@pytest.mark.parametrize(
    "request_",
    [
        lambda: asking(network_service="another"),
        lambda: asking(network_service_endpoint_name="nse-2"),
        lambda: asking(payload="ETHERNET"),
        lambda: asking(id="c2"),
        lambda: Request(connection=asking().connection, mechanism_preferences=[Mechanism(type="MEMIF")]),
        lambda: Request(
            connection=asking().connection,
            mechanism_preferences=[Mechanism(type="KERNEL", parameters={"name": "nsm-2"})],
        ),
    ],
)
def test_what_is_not_what_the_client_asks_for_is_left_alone(request_: Callable[[], Request]) -> None:
    @virtual_time
    async def scenario() -> None:
        async with restarted(Manager([manager_view()])) as bench:
            await bench.request(request_(), timeout=5)
            assert len(sent(bench).path.path_segments) == 1
            assert not sent(bench).mechanism.type

    scenario()


@virtual_time
async def test_another_clients_connection_is_left_alone_and_so_is_one_of_another_hop() -> None:
    stranger, further = manager_view(), manager_view()
    stranger.path.path_segments[0].name = "somebody"
    further.path.index = 2
    for view in (stranger, further):
        async with restarted(Manager([view])) as bench:
            await bench.request(asking(), timeout=5)
            assert len(sent(bench).path.path_segments) == 1


@virtual_time
async def test_the_domain_of_a_service_may_be_the_hops_business() -> None:
    async with restarted(Manager([manager_view(network_service="svc@far.example")])) as bench:
        await bench.request(asking(), timeout=5)
        assert sent(bench).network_service_endpoint_name == "nse-1"


@virtual_time
async def test_the_manager_is_asked_once_until_the_close() -> None:
    manager = Manager()
    async with restarted(manager) as bench:
        await bench.request(asking(), timeout=5)
        await bench.request(asking(), timeout=5)
        assert manager.asked == 1
        await bench.close(timeout=5)
        await bench.request(asking(), timeout=5)
        assert manager.asked == 2


@virtual_time
async def test_a_manager_that_is_not_there_fails_the_request_and_is_asked_again() -> None:
    for error in (Unavailable("down"), NotReached("nobody answers")):
        manager = Manager([manager_view()], error=error)
        async with restarted(manager) as bench:
            with pytest.raises(Unavailable):
                await bench.request(asking(), timeout=5)
            assert not bench.seen.calls
            assert not await bench.left()
            manager.error = None
            await bench.request(asking(), timeout=5)
            assert sent(bench).network_service_endpoint_name == "nse-1"


@virtual_time
async def test_a_manager_that_does_not_tell_has_nothing() -> None:
    for manager in (
        Manager(error=PermissionDenied("no")),
        Manager(error=Unimplemented("no")),
        Manager(error=Internal("what?")),
        Manager(silent=True),
    ):
        async with restarted(manager) as bench:
            await bench.request(asking(), timeout=5)
            assert len(sent(bench).path.path_segments) == 1
            assert manager.asked == 1


@virtual_time
async def test_what_could_not_be_taken_up_is_looked_for_again() -> None:
    manager = Manager([manager_view()])
    async with restarted(manager, None, FailTimes(1, Unavailable("busy"), verb="request")) as bench:
        with pytest.raises(Unavailable, match="busy"):
            await bench.request(asking(), timeout=5)
        manager.known.clear()
        await bench.request(asking(), timeout=5)
        assert manager.asked == 2
        assert len(sent(bench).path.path_segments) == 1


@virtual_time
async def test_wishes_are_kept_and_what_a_dead_endpoint_gave_is_not() -> None:
    left = manager_view()
    left.context.MTU = 1400
    for route in ("10.1.0.0/16", "10.2.0.0/16"):
        left.context.ip_context.src_routes.add(prefix=route)
    left.context.dns_context.configs.add(dns_server_ips=["10.0.0.9"])
    wishes = asking()
    wishes.connection.context.ip_context.src_routes.add(prefix="10.2.0.0/16")
    wishes.connection.context.ip_context.excluded_prefixes.append("10.9.0.0/16")
    wishes.connection.context.extra_context["a"] = "b"
    for probe, routes, mtu in ((Says(True), ["10.1.0.0/16", "10.2.0.0/16"], 1400), (Says(False), ["10.2.0.0/16"], 0)):
        async with restarted(Manager([left]), probe) as bench:
            await bench.request(wishes, timeout=5)
            context = sent(bench).context
            assert [route.prefix for route in context.ip_context.src_routes] == routes
            assert context.ip_context.excluded_prefixes == ["10.9.0.0/16"]
            assert context.ip_context.src_ip_addrs == ["10.0.0.1/32"], "offered, also to another endpoint"
            assert dict(context.extra_context) == {"a": "b"}
            assert mtu == context.MTU
            assert len(context.dns_context.configs) == (1 if probe.alive else 0)


@virtual_time
async def test_finding_and_taking_over_one_by_one() -> None:
    async with rig() as bench:
        near = Manager([manager_view("c1"), manager_view("c2")]).dial(MANAGER)
        assert [conn.id for conn in await find_connections(near, bench.call(), ["c2"])] == ["m-c2"]
        assert await find_connections(Bound(), bench.call(), ["c2"]) == []
    taken = take_over(manager_view("c1"), "c1")
    assert taken is not None
    assert (taken.id, taken.path.index) == ("c1", 0)
    assert take_over(manager_view("c1"), "c2") is None
    assert take_over(manager_view("c1"), "c1", ["MEMIF"]) is None


@virtual_time
async def test_addresses_of_a_connection_that_was_taken_up_do_not_pile_up_when_it_moves() -> None:
    world = World(endpoints={"nse-1": Nse(name="nse-1"), "nse-2": Nse(name="nse-2", net=2)})
    async with rig(Chain("nsc-1", *client(world, Heal(seed=1))), clock=current_clock()) as first:
        await first.request(Request(connection=Connection(id="c1", network_service="svc")), timeout=5)
        known = world.known("c1")
        assert known is not None
        first.running.kill()
    heal = Heal(Flows(world), liveness=Liveness(interval=0.2, timeout=0.1), seed=1)
    resume = Resume("nsc-1", manager=MANAGER, dial=world.dial, heal=heal)
    async with rig(Chain("nsc-1", resume, *client(world, heal)), clock=current_clock()) as second:
        conn = await second.request(Request(connection=Connection(id="c1", network_service="svc")), timeout=5)
        assert conn.network_service_endpoint_name == "nse-1"
        world.kill_nse("nse-1")
        await VirtualClock().advance(30.0)
        moved = world.known("c1")
        assert moved is not None
        assert moved.network_service_endpoint_name == "nse-2"
        assert moved.context.ip_context.src_ip_addrs == ["10.0.2.1/32"]
