# SPDX-License-Identifier: Apache-2.0
"""Our client in the place of the recorded one.

Does:  replays what the recorded manager answered and published, and compares what our client sends with what the Go
       client sent: every Request and Close must be one that the recorded peer got at that point of the story, by ids,
       path, endpoint, mechanism, state and preferences. How often healing repeats is not compared, nor that Go opens a
       stream for each connection and each element where ours has one for all. Of the context, routes of a former
       endpoint may be missing from a reselect, and addresses of a former endpoint from what follows.
Place: nsm_sdk.heal, with heal-*.json, monitor-refresh-requested.json and monitor.json.
State: none.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from nsm_sdk.api import Connection, ConnectionEvent, EventType, Request, Selector, State, matches
from nsm_sdk.core import Bound, Call, Next, WatchNext
from nsm_sdk.elements import Begin, Connect, Heard, News, UpdatePath
from nsm_sdk.elements.connect import ClientUrl
from nsm_sdk.errors import from_status
from nsm_sdk.heal import Ask, Event, Heal, Liveness
from nsm_sdk.heal.model import Said
from nsm_sdk.testing import Rig, VirtualClock, rig, settled, virtual_time
from tests.fixtures import load, needs_fixtures
from tests.wire.deviations import DEVIATIONS

pytestmark = needs_fixtures
URL = "inproc://recorded"


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One call of the recorded client."""

    verb: str
    request: Request = field(default_factory=Request)
    conn: Connection = field(default_factory=Connection)
    answer: Connection | None = None
    status: tuple[int, str] = (0, "")
    events: list[ConnectionEvent] = field(default_factory=list)
    first: int = 0


def recorded_calls(name: str, client: str) -> list[Recorded]:
    """What `client` said to its manager, in order."""
    file = load(name)
    found: list[Recorded] = []
    for call in file["calls"]:
        if call["client"] != client or call["server"] != "nsmgr-1":
            continue
        verb = call["method"].rpartition("/")[2]
        one = Recorded(verb=verb, first=call["first_event"])
        status = call.get("status") or {"code": 0, "message": ""}
        one.status = (status["code"], status["message"])
        for event in file["events"]:
            if event.get("call") != call["call"] or "bytes" not in event:
                continue
            _fill(one, event, base64.b64decode(event["bytes"]))
        found.append(one)
    return found


def _fill(one: Recorded, event: dict[str, Any], data: bytes) -> None:
    match event["kind"], one.verb:
        case "request-message", "Request":
            one.request = Request.FromString(data)
            one.conn = one.request.connection
        case "request-message", "Close":
            one.conn = Connection.FromString(data)
        case "response-message", "Request":
            one.answer = Connection.FromString(data)
        case "response-message", "MonitorConnections":
            one.events.append(ConnectionEvent.FromString(data))
        case _:
            pass


@dataclass(slots=True, kw_only=True)
class Manager:
    """Answers as the recorded one did."""

    calls: list[Recorded]
    requests: deque[Recorded] = field(default_factory=deque)
    closes: deque[Recorded] = field(default_factory=deque)
    sent: list[tuple[str, Connection, Connection]] = field(default_factory=list)
    """(verb, ours, theirs)"""
    extra: list[Request] = field(default_factory=list)
    """Requests beyond the recorded ones; refreshes, which any manager accepts."""
    selectors: list[Selector] = field(default_factory=list)
    streams: list[deque[ConnectionEvent]] = field(default_factory=list)
    wake: list[Any] = field(default_factory=list)
    said: int = 0
    last: Connection | None = None
    closed: Recorded | None = None
    """The close since which no request has succeeded."""

    def __post_init__(self) -> None:
        self.requests.extend(call for call in self.calls if call.verb == "Request")
        self.closes.extend(call for call in self.calls if call.verb == "Close")

    def dial(self, url: str) -> Bound:
        return Bound(connection=Next(self.request, self.close), monitor=WatchNext(self.watch))

    async def request(self, call: Call, request: Request) -> Connection:
        theirs = self.requests[0] if self.requests else None
        if theirs is None or theirs.conn.state != request.connection.state:
            assert request.connection.state == State.UP, "only a plain refresh needs no precedent"
            self.extra.append(request)
            assert self.last is not None
            answer = Connection()
            answer.CopyFrom(request.connection)
            return answer
        self.requests.popleft()
        ours = Connection()
        ours.CopyFrom(request.connection)
        self.sent.append(("Request", ours, theirs.conn))
        assert [item.type for item in request.mechanism_preferences] == [
            item.type for item in theirs.request.mechanism_preferences
        ]
        if theirs.answer is None:
            raise from_status(*theirs.status)
        self.closed = None
        self.last = theirs.answer
        if request.connection.state == State.RESELECT_REQUESTED:
            # Go's manager echoes the state a moment after the answer.
            for number, event in enumerate(self.monitors()[1].events):
                call.runtime.after(0.0005 * number, lambda event=event: self._say(event))  # type: ignore[misc]
        answer = Connection()
        answer.CopyFrom(theirs.answer)
        return answer

    async def close(self, call: Call, conn: Connection) -> None:
        ours = Connection()
        ours.CopyFrom(conn)
        if self.closed is not None:
            # Repeated, because what followed has failed; that one is closed already.
            assert ours.id == self.closed.conn.id
            raise from_status(*self.closed.status)
        theirs = self.closed = self.closes.popleft()
        self.sent.append(("Close", ours, theirs.conn))
        if theirs.status[0] and theirs.status[1]:
            raise from_status(*theirs.status)

    async def watch(self, call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        self.selectors.append(selector)
        queue: deque[ConnectionEvent] = deque()
        wake = anyio.Event()
        self.streams.append(queue)
        self.wake.append(wake)
        while True:
            while queue:
                yield queue.popleft()
            wake = anyio.Event()
            self.wake[self.streams.index(queue)] = wake
            await wake.wait()

    async def say(self, event: ConnectionEvent) -> None:
        """Publish what was published then; an initial transfer of theirs is an update of our longer stream."""
        self._say(event)
        await settled()

    def _say(self, event: ConnectionEvent) -> None:
        copy = ConnectionEvent()
        copy.CopyFrom(event)
        if copy.type == EventType.INITIAL_STATE_TRANSFER and self.said:
            copy.type = EventType.UPDATE
        self.said += 1
        for queue, wake in zip(self.streams, self.wake, strict=True):
            queue.append(copy)
            wake.set()

    def monitors(self) -> list[Recorded]:
        return [call for call in self.calls if call.verb == "MonitorConnections"]

    def compare(self, recording: str) -> None:
        """What was sent, one by one."""
        for verb, ours, theirs in self.sent:
            mine_is, theirs_is = shape(ours), shape(theirs)
            if verb == "Request" and ours.state == State.RESELECT_REQUESTED:
                payloads = mine_is.pop("payload"), theirs_is.pop("payload")
                assert payloads[0] == self.sent[0][1].payload
                assert (payloads[0] != payloads[1]) is ((recording, "reselects", "payload") in DEVIATIONS)
            assert mine_is == theirs_is, verb
            for name in ("src_ip_addrs", "dst_ip_addrs", "src_routes", "dst_routes"):
                mine = [str(item) for item in getattr(ours.context.ip_context, name)]
                other = [str(item) for item in getattr(theirs.context.ip_context, name)]
                assert set(mine) <= set(other), (verb, name)


def shape(conn: Connection) -> dict[str, Any]:
    """What a peer acts on."""
    return {
        "id": conn.id,
        "index": conn.path.index,
        "path": [(hop.name, hop.id, hop.token) for hop in conn.path.path_segments],
        "service": conn.network_service,
        "endpoint": conn.network_service_endpoint_name,
        "mechanism": conn.mechanism.SerializeToString(deterministic=True) if conn.HasField("mechanism") else None,
        "state": conn.state,
        "payload": conn.payload,
        "labels": dict(conn.labels),
        "mtu": conn.context.MTU,
    }


def chain(manager: Manager, heal: Heal, name: str = "nsc-1") -> list[Any]:
    return [UpdatePath(name), Begin(merges=True), ClientUrl(URL), heal, Connect(manager.dial)]


async def open_first(bench: Rig, manager: Manager) -> Connection:
    """The application's first request, as it was recorded."""
    conn = await bench.request(manager.requests[0].request, timeout=15.0)
    kept = Connection()
    kept.CopyFrom(conn)
    await manager.say(manager.monitors()[0].events[0])
    return kept


@pytest.mark.parametrize("name", ["heal-nse", "heal-forwarder"])
@virtual_time
async def test_control_plane_heals(name: str) -> None:
    manager = Manager(calls=recorded_calls(name, "nsc-1"))
    heal = Heal(seed=1)
    happened: list[Event] = []
    heal.happenings.told.append(lambda what: happened.append(what.event))
    recorded_reselects = [call for call in manager.requests if call.conn.state == State.RESELECT_REQUESTED]
    async with rig(*chain(manager, heal)) as bench:
        first = await open_first(bench, manager)
        down = manager.monitors()[0].events[-1]
        assert any(conn.state == State.DOWN for conn in down.connections.values())
        assert all(matches(manager.selectors[0], conn) for conn in down.connections.values())
        await manager.say(down)
        await VirtualClock().advance(60)
        assert Event.HEALED in happened
        order = [verb for verb, ours, _ in manager.sent if verb == "Close" or ours.state == State.RESELECT_REQUESTED]
        assert order[:2] == ["Close", "Request"]
        assert order.count("Request") == len(recorded_reselects)
        assert happened.count(Event.HEALING) == 1
        if manager.requests:
            again = Request(connection=first, mechanism_preferences=manager.requests[0].request.mechanism_preferences)
            await bench.request(again, timeout=15.0)
        await bench.close(first)
        manager.compare(name)
        assert not manager.requests
        assert manager.sent[-1][0] == "Close"
        left = await bench.left()
        assert not left.slots


@virtual_time
async def test_datapath_heals() -> None:
    manager = Manager(calls=recorded_calls("heal-datapath", "nsc-1"))
    fine = True

    async def alive(conn: Connection) -> bool:
        return fine or conn.network_service_endpoint_name != "nse-1"

    heal = Heal(Ask(alive), liveness=Liveness(interval=0.2, timeout=0.1), seed=1)
    async with rig(*chain(manager, heal)) as bench:
        first = await open_first(bench, manager)
        await VirtualClock().advance(0.5)
        assert len(manager.sent) == 1
        fine = False
        await VirtualClock().advance(0.3)
        assert [verb for verb, _, _ in manager.sent] == ["Request", "Close", "Request"]
        await VirtualClock().advance(10)
        assert len(manager.sent) == 3
        journal = heal.journals.get("conn-1")
        assert journal is not None
        assert (journal.heals, journal.moves) == (1, 1)
        await bench.close(first)
        manager.compare("heal-datapath")
        assert not manager.requests
        assert not (await bench.left()).slots


@virtual_time
async def test_addresses_of_the_former_endpoint_go_with_one_more_refresh() -> None:
    """Where Go's client keeps both addresses for ever (see the recording), ours takes the stale one off."""
    manager = Manager(calls=recorded_calls("heal-datapath", "nsc-1"))
    heal = Heal(Ask(lambda conn: _is_not(conn, "nse-1", asked)), liveness=Liveness(interval=0.2, timeout=0.1), seed=1)
    asked: list[str] = []
    async with rig(*chain(manager, heal)) as bench:
        await open_first(bench, manager)
        await VirtualClock().advance(1)
        (tidy,) = manager.extra
        assert list(tidy.connection.context.ip_context.src_ip_addrs) == ["10.0.2.1/32"]
        assert list(tidy.connection.context.ip_context.dst_ip_addrs) == ["10.0.2.0/32"]
        assert tidy.connection.network_service_endpoint_name == "nse-2"
        await bench.close()


async def _is_not(conn: Connection, name: str, asked: list[str]) -> bool:
    asked.append(conn.network_service_endpoint_name)
    return conn.network_service_endpoint_name != name


@virtual_time
async def test_refresh_on_demand() -> None:
    manager = Manager(calls=recorded_calls("monitor-refresh-requested", "nsc-1"))
    heal = Heal(seed=1)
    async with rig(*chain(manager, heal)) as bench:
        first = await open_first(bench, manager)
        wish = manager.monitors()[0].events[-1]
        assert any(conn.state == State.REFRESH_REQUESTED for conn in wish.connections.values())
        # Go has two elements that listen, each with a stream, and refreshes once all the same
        await manager.say(wish)
        await VirtualClock().advance(1)
        assert [verb for verb, _, _ in manager.sent] == ["Request", "Request"]
        for event in manager.monitors()[-1].events:
            await manager.say(event)
        await VirtualClock().advance(10)
        assert len(manager.sent) == 2
        assert not manager.extra
        await bench.close(first)
        manager.compare("monitor-refresh-requested")
        assert not manager.requests


@virtual_time
async def test_what_the_recorded_monitor_says_is_understood() -> None:
    (stream,) = recorded_calls("monitor", "monitor-by-name-and-id")
    (conn_id,) = {conn.path.path_segments[0].id for event in stream.events for conn in event.connections.values()}
    understood: list[Said | None] = []
    world = Manager(calls=recorded_calls("monitor", "nsc-1"))
    heal = Heal(seed=1)
    async with rig(*chain(world, heal)) as bench:
        await bench.request(world.requests[0].request)
        held = heal._open[conn_id]
        for event in stream.events:
            for conn in event.connections.values():
                heard = held.heard(Heard(News.EVENT, conn, EventType(event.type)))
                understood.append(None if heard is None else heard.said)
        await bench.close()
    assert understood == [Said.UP, Said.UP, Said.DOWN, Said.UP, Said.DOWN, Said.DOWN]
