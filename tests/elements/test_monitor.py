# SPDX-License-Identifier: Apache-2.0
"""Monitor and Follower: what one hop says of a connection reaches the hops before it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import anyio
import pytest

from nsm_sdk.api import Connection, ConnectionEvent, EventType, PathSegment, Request, Selector, Snapshot, State
from nsm_sdk.core import Call, Chain, Element, Next, Role, Running, WatchElement, WatchNext
from nsm_sdk.elements import Begin, ClientUrl, Connect, Follower, Heard, Hub, Monitor, News, UpdatePath, Watch
from nsm_sdk.elements.connect import NEXT_HOP, NextHop
from nsm_sdk.errors import PermissionDenied, Unavailable
from nsm_sdk.testing import FailTimes, current_clock, rig, settled, virtual_time
from nsm_sdk.transport import Dialer, listen

ASKING = Request(connection=Connection(id="c1", network_service="ns"))


class Hop:
    """One served hop: forwards to `next_url`, or is the endpoint."""

    def __init__(self, name: str, next_url: str = "", *elements: Element, watch: tuple[WatchElement, ...] = ()) -> None:
        self.name = name
        self.hub = Hub()
        self.follower = Follower()
        onward: list[Element] = [ClientUrl(next_url), Connect(Dialer())] if next_url else []
        self.role = Role(
            name,
            connection=Chain(name, UpdatePath(name), Begin(), Monitor(self.hub, self.follower), *elements, *onward),
            monitor=Chain("monitor", *watch, Watch(self.hub)),
        )

    def state(self, conn_id: str = "") -> int | None:
        """State of the one connection, or of `conn_id`, in the hub; None without."""
        found = [conn for conn in self.hub.connections(Selector()) if not conn_id or conn.id == conn_id]
        return found[0].state if found else None


@asynccontextmanager
async def line(*hops: Hop) -> AsyncGenerator[list[Running], None]:
    async with AsyncExitStack() as stack:
        running = []
        for hop in reversed(hops):
            serving = hop.role.serving(listen=[listen(f"inproc://{hop.name}")], clock=current_clock())
            running.append(await stack.enter_async_context(serving))
        yield running[::-1]


async def ask(running: Running, request: Request = ASKING) -> Connection:
    mine = Request()
    mine.CopyFrom(request)
    assert running.bound.connection is not None
    return await running.bound.connection.request(running.call(timeout=10), mine)


@virtual_time
async def test_a_loss_travels_hop_by_hop() -> None:
    one, two, end = Hop("one", "inproc://two"), Hop("two", "inproc://end"), Hop("end")
    async with line(one, two, end) as (first, _, last):
        await ask(first)
        await settled()
        assert (one.state(), two.state(), end.state()) == (State.UP, State.UP, State.UP)
        last.kill()
        await settled()
        assert (one.state(), two.state()) == (State.DOWN, State.DOWN)


@virtual_time
async def test_an_endpoint_that_closes_is_down_before_it_and_a_client_that_closes_deletes_everywhere() -> None:
    one, two, end = Hop("one", "inproc://two"), Hop("two", "inproc://end"), Hop("end")
    async with line(one, two, end) as (first, _, last):
        conn = await ask(first)
        await settled()
        begin = last.find(Begin)
        (record,) = begin._records.values()
        record.events.close()
        await settled()
        assert (one.state(), two.state(), end.state()) == (State.DOWN, State.DOWN, None)
        assert first.bound.connection is not None
        await first.bound.connection.close(first.call(timeout=10), conn)
        assert (one.state(), two.state(), end.state()) == (None, None, None)
        assert one.follower._peers == {}


@virtual_time
async def test_what_the_endpoint_changes_is_heard_by_the_client() -> None:
    one, end = Hop("one", "inproc://end"), Hop("end")
    async with line(one, end) as (first, _):
        await ask(first)
        await settled()
        (theirs,) = end.hub.connections(Selector())
        theirs.context.MTU = 1400
        end.hub.update(theirs)
        end.hub.request_refresh(theirs.id)
        await settled()
        (ours,) = one.hub.connections(Selector())
        assert (ours.state, ours.context.MTU, ours.path.index, ours.id) == (State.REFRESH_REQUESTED, 1400, 0, "c1")


class Fails(Element):
    """Fails while told to."""

    def __init__(self) -> None:
        self.now = False

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if self.now:
            raise Unavailable("as told")
        return await next.request(call, request)


@virtual_time
async def test_a_failed_refresh_is_down_and_the_next_success_up() -> None:
    fails = Fails()
    one, end = Hop("one", "inproc://end", fails), Hop("end")
    async with line(one, end) as (first, _):
        await ask(first)
        fails.now = True
        with pytest.raises(Unavailable):
            await ask(first)
        fails.now = False
        assert one.state() == State.DOWN
        await ask(first)
        assert one.state() == State.UP


@virtual_time
async def test_one_stream_serves_all_connections_of_a_peer() -> None:
    one, end = Hop("one", "inproc://end"), Hop("end")
    async with line(one, end) as (first, _):
        for number in range(5):
            await ask(first, Request(connection=Connection(id=f"c{number}", network_service="ns")))
        await settled()
        assert end.hub.subscribers == 1
        assert first.find(Begin) is not None


class NeedsId(WatchElement):
    """A policy that lets a peer watch its own connections only, one by one."""

    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        if not all(segment.id for segment in selector.path_segments):
            raise PermissionDenied("name the connection")
        async with aclosing(next.watch(call, selector)) as events:
            async for event in events:
                yield event


@virtual_time
async def test_a_peer_whose_policy_refuses_one_stream_gets_one_per_connection() -> None:
    one, end = Hop("one", "inproc://end"), Hop("end", watch=(NeedsId(),))
    async with line(one, end) as (first, last):
        for number in range(3):
            await ask(first, Request(connection=Connection(id=f"c{number}", network_service="ns")))
        await settled()
        assert end.hub.subscribers == 3
        last.kill()
        await settled()
        assert [one.state(f"c{number}") for number in range(3)] == [State.DOWN] * 3


class Deaf(WatchElement):
    """Refuses every stream."""

    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        raise PermissionDenied("nobody watches here")
        yield ConnectionEvent()


@virtual_time
async def test_a_refusal_says_nothing_of_the_connection() -> None:
    one, end = Hop("one", "inproc://end"), Hop("end", watch=(Deaf(),))
    async with line(one, end) as (first, _):
        await ask(first)
        await anyio.sleep(300)
        assert one.state() == State.UP


@virtual_time
async def test_a_peer_that_came_back_without_the_connection_says_so() -> None:
    heard: list[Heard] = []

    class Listen(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            conn = await next.request(call, request)
            far = NEXT_HOP.get(call)
            assert far is not None
            follower.follow(conn, far, heard.append)
            return conn

    follower = Follower()
    chain = Chain("nsc", UpdatePath("nsc"), Begin(), Listen(), ClientUrl("inproc://end"), Connect(Dialer()))
    keeper = Role("keeper", services=[follower])
    async with keeper.serving(clock=current_clock()), rig(chain, check=False) as bench:
        async with line(Hop("end")) as (running,):
            await bench.request(ASKING, timeout=5)
            await settled()
            running.kill()
        await settled()
        assert [one.news for one in heard] == [News.EVENT, News.LOST]
        async with line(Hop("end")):
            await anyio.sleep(10)
            assert heard[-1].news is News.MISSING
            assert [one.news for one in heard].count(News.LOST) == 1


@virtual_time
async def test_a_follower_that_stops_before_its_stream_is_open_stops_quietly(caplog: pytest.LogCaptureFixture) -> None:
    one, end = Hop("one", "inproc://end"), Hop("end")
    async with line(one, end) as (first, _):
        dial = Dialer()
        async with Role("looking", services=[dial]).serving(clock=current_clock()) as looking:
            follower = Follower()
            await follower.start(looking.runtime)
            conn = await ask(first)
            conn.path.index = 0
            conn.id = conn.path.path_segments[0].id
            far = NextHop(url="inproc://end", bound=dial("inproc://end"), sent=Snapshot.of(conn))
            assert follower.follow(conn, far, print) is not None
            await follower.stop()
            await settled()
        assert end.hub.subscribers == 1, "only that of the hop"
    assert not caplog.records


@virtual_time
async def test_an_event_of_another_incarnation_is_not_believed() -> None:
    one, end = Hop("one", "inproc://end"), Hop("end")
    async with line(one, end) as (first, _):
        await ask(first)
        await settled()
        (theirs,) = end.hub.connections(Selector())
        theirs.path.path_segments.insert(0, PathSegment(name="before", id="x"))
        theirs.path.index = 2
        theirs.state = State.DOWN
        end.hub.update(theirs)
        await settled()
        assert one.state() == State.UP


@virtual_time
async def test_deletes_are_told_even_when_the_close_fails() -> None:
    hub = Hub()
    kinds = []
    async with rig(Begin(), Monitor(hub), FailTimes(1, Unavailable("x"), verb="close"), check=False) as bench:
        await bench.request(ASKING)
        async with aclosing(hub.watch(Selector())) as events:
            kinds.append((await anext(events)).type)
            await bench.close(ASKING.connection)
            kinds.append((await anext(events)).type)
    assert kinds == [EventType.INITIAL_STATE_TRANSFER, EventType.DELETE]


@virtual_time
async def test_what_a_peer_said_before_the_request_is_not_news() -> None:
    end = Hop("end")
    follower = Follower()
    heard: list[Heard] = []

    class Listen(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            since = follower.mark()
            conn = await next.request(call, request)
            far = NEXT_HOP.get(call)
            assert far is not None
            follower.follow(conn, far, heard.append, since=since)
            return conn

    chain = Chain("nsc", UpdatePath("nsc"), Begin(), Listen(), ClientUrl("inproc://end"), Connect(Dialer()))
    keeper = Role("keeper", services=[follower])
    async with line(end) as (running,), keeper.serving(clock=current_clock()), rig(chain, check=False) as bench:
        # Another connection keeps the stream open; this one is not followed when it goes down.
        await bench.request(Request(connection=Connection(id="other", network_service="ns")), timeout=5)
        await settled()
        stray = await ask(running, Request(connection=at_end("c1")))
        end.hub.delete(stray)
        await settled()
        heard.clear()
        await bench.request(ASKING, timeout=5)
        await settled()
        assert not [one for one in heard if one.kind is EventType.DELETE]


def at_end(conn_id: str) -> Connection:
    """A connection of `nsc` as it arrives at the endpoint."""
    conn = Connection(id=conn_id, network_service="ns")
    conn.path.path_segments.append(PathSegment(name="nsc", id=conn_id))
    return conn
