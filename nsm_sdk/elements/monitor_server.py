# SPDX-License-Identifier: Apache-2.0
"""The table of a hop's connections, and everybody who watches it.

Does:  `Hub` holds the last event of each connection and hands new ones to the subscribers that asked for it.
       Connections and subscribers are indexed by (segment name, id): an event never scans all streams. What a caller
       has asked for itself is told a little later, many connections at a time, so that telling does not slow asking;
       the rest at once. `Watch` answers a stream.
Place: `Watch` alone makes the monitor chain of a hop; `Monitor` publishes into the same hub.
State: one snapshot per connection, one bounded queue per subscriber.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio

from nsm_sdk.api import Connection, ConnectionEvent, EventType, Selector, Snapshot, State, matches
from nsm_sdk.core import Call, Runtime, Service, WatchElement, WatchNext

Key = tuple[str, str]
"""(segment name, segment id); an empty text stands for any."""

QUEUE = 256
"""Events that may wait for a slow subscriber before updates of one connection are merged into the last of them; where
more connections wait than that, twice as many events as there are connections."""


LATER = 0.05
"""Seconds that a routine event may wait for others to travel with."""

_BREATH = 256
"""Connections that are looked at in one go; then others have their turn."""


class Subscriber:
    """One open stream."""

    __slots__ = ("_held", "_later", "_most", "_segments", "_services", "_timer", "exact", "key", "queue", "wake")

    def __init__(self, selector: Selector) -> None:
        # A selector may name many services, and each event is held against it.
        self._services = frozenset(selector.network_services)
        self._segments = Selector(path_segments=selector.path_segments)
        self.key = _selector_key(selector)
        wanted = selector.path_segments
        # Then whatever is found under the key matches.
        self.exact = len(wanted) <= 1 and not selector.network_services and not (wanted and wanted[0].token)
        self.queue: deque[ConnectionEvent] = deque()
        self.wake = anyio.Event()
        self._held = self._most = 0
        """Connections in the queue, and how many there may be before they are merged again."""
        self._later: dict[str, tuple[EventType, Snapshot]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def wants(self, conn: Connection) -> bool:
        """Whether the selector means the connection."""
        return (not self._services or conn.network_service in self._services) and matches(self._segments, conn)

    def put(self, kind: EventType, snapshot: Snapshot, *, routine: bool) -> None:
        """Queue without waiting: a slow reader delays nobody. It overtakes what waits of the same connection."""
        if routine:
            self._later[snapshot.id] = kind, snapshot
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(LATER, self._flush)
            return
        self._later.pop(snapshot.id, None)
        self._queue(kind, snapshot)

    def take(self) -> ConnectionEvent:
        """The oldest event of the queue."""
        event = self.queue.popleft()
        self._held -= len(event.connections)
        return event

    def close(self) -> None:
        """Nobody reads any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        self._timer = None
        later, self._later = self._later, {}
        for kind in (EventType.UPDATE, EventType.DELETE):
            found = [snapshot for what, snapshot in later.values() if what is kind]
            if found:
                self._queue(kind, *found)

    def _queue(self, kind: EventType, *snapshots: Snapshot) -> None:
        event = ConnectionEvent(type=kind)
        for snapshot in snapshots:
            event.connections[snapshot.id].MergeFromString(snapshot.data)
        self.queue.append(event)
        self._held += len(event.connections)
        if len(self.queue) > QUEUE and self._held > self._most:
            self._merge()
        self.wake.set()

    def _merge(self) -> None:
        """Keep the last event of each connection."""
        last: dict[str, tuple[EventType, Connection]] = {}
        for event in self.queue:
            for conn_id, conn in event.connections.items():
                last.pop(conn_id, None)
                last[conn_id] = EventType(event.type), conn
        self.queue.clear()
        for kind, conn in last.values():
            event = ConnectionEvent(type=kind)
            event.connections[conn.id].CopyFrom(conn)
            self.queue.append(event)
        # A merge looks at all that waits, so it comes only when as much again has come.
        self._held = len(self.queue)
        self._most = 2 * self._held


def _selector_key(selector: Selector) -> Key:
    """What to index a subscriber by: the most telling segment of its selector."""
    best: Key = ("", "")
    for segment in selector.path_segments:
        key = (segment.name, segment.id)
        if all(key):
            return key
        if key[1] or (key[0] and not best[1]):
            best = key
    return best


class Hub(Service):
    """Connections of this hop, for peers that monitor them."""

    def __init__(self) -> None:
        self._connections: dict[str, Snapshot] = {}
        self._ids: dict[str, tuple[str, ...]] = {}
        """Segment ids of each connection."""
        self._by_id: dict[str, str | set[str]] = {}
        """Connections by segment id; a set only where there are several, which is rare."""
        self._subscribers: dict[Key, dict[Subscriber, None]] = {}
        self._closed = anyio.Event()

    async def start(self, runtime: Runtime) -> None:
        self._closed = anyio.Event()

    async def stop(self) -> None:
        self._closed.set()
        for group in list(self._subscribers.values()):
            for subscriber in group:
                subscriber.wake.set()
        self._connections.clear()
        self._by_id.clear()
        self._ids.clear()

    def update(self, conn: Connection, *, routine: bool = False, snapshot: Snapshot | None = None) -> Snapshot:
        """The connection has changed, or was confirmed; returns what is stored now, `snapshot` if the caller has one.

        `routine`: whoever it concerns knows it already, because it has asked for it; others hear of it within `LATER`.
        """
        snapshot = snapshot or Snapshot.of(conn)
        conn_id = snapshot.id
        self._connections[conn_id] = snapshot
        ids = tuple([segment.id for segment in conn.path.path_segments])
        before = self._ids.get(conn_id)
        if ids != before:
            self._index(conn_id, before or (), ids)
            self._ids[conn_id] = ids
        if self._subscribers:
            self._tell(EventType.UPDATE, snapshot, conn, routine)
        return snapshot

    def delete(self, conn: Connection | Snapshot, *, routine: bool = False) -> None:
        """The connection is closed; `routine` as above."""
        snapshot = conn if isinstance(conn, Snapshot) else Snapshot.of(conn)
        self._connections.pop(snapshot.id, None)
        if (ids := self._ids.pop(snapshot.id, None)) is not None:
            self._index(snapshot.id, ids, ())
        if self._subscribers:
            self._tell(EventType.DELETE, snapshot, snapshot.connection(), routine)

    def request_refresh(self, conn_id: str) -> bool:
        """Ask the client to refresh (its context has changed here); False for a connection nobody knows."""
        snapshot = self._connections.get(conn_id)
        if snapshot is None:
            return False
        conn = snapshot.connection()
        conn.state = State.REFRESH_REQUESTED
        self.update(conn)
        return True

    def connections(self, selector: Selector) -> list[Connection]:
        """Those that match now."""
        found = (self._connections[conn_id].connection() for conn_id in self._suspects(selector))
        wants = Subscriber(selector).wants
        return [conn for conn in found if wants(conn)]

    def _suspects(self, selector: Selector) -> list[str]:
        """Ids of those that may match."""
        _, segment_id = _selector_key(selector)
        if not segment_id:
            return list(self._connections)
        found = self._by_id.get(segment_id, ())
        return [found] if isinstance(found, str) else list(found)

    async def _initial(self, selector: Selector, subscriber: Subscriber) -> ConnectionEvent:
        """Those that match. What changes while they are collected is in the subscriber's queue already."""
        initial = ConnectionEvent(type=EventType.INITIAL_STATE_TRANSFER)
        for count, conn_id in enumerate(self._suspects(selector), 1):
            if not count % _BREATH:
                await asyncio.sleep(0)
            snapshot = self._connections.get(conn_id)
            if snapshot is not None and subscriber.wants(conn := snapshot.connection()):
                initial.connections[conn_id].CopyFrom(conn)
        return initial

    async def watch(self, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        """The matching connections, then what changes, until the hop stops or the reader goes."""
        subscriber = Subscriber(selector)
        group = self._subscribers.setdefault(subscriber.key, {})
        group[subscriber] = None
        try:
            yield await self._initial(selector, subscriber)
            while not self._closed.is_set():
                while subscriber.queue:
                    yield subscriber.take()
                if not self._closed.is_set():
                    subscriber.wake = anyio.Event()
                    await subscriber.wake.wait()
        finally:
            subscriber.close()
            group.pop(subscriber, None)
            if not group:
                self._subscribers.pop(subscriber.key, None)

    def _index(self, conn_id: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        index = self._by_id
        for segment_id in before:
            if segment_id not in after and (found := index.get(segment_id)) is not None:
                if isinstance(found, set):
                    found.discard(conn_id)
                if not found or found == conn_id:
                    del index[segment_id]
        for segment_id in after:
            if segment_id and segment_id not in before:
                found = index.setdefault(segment_id, conn_id)
                if isinstance(found, set):
                    found.add(conn_id)
                elif found != conn_id:
                    index[segment_id] = {found, conn_id}

    def _tell(self, kind: EventType, snapshot: Snapshot, conn: Connection, routine: bool) -> None:
        groups = self._subscribers
        found: dict[Subscriber, None] = dict(groups.get(("", ""), ()))
        for segment in conn.path.path_segments:
            name, segment_id = segment.name, segment.id
            for key in ((name, segment_id), (name, ""), ("", segment_id)):
                if key in groups:
                    found.update(groups[key])
        for subscriber in found:
            if subscriber.exact or subscriber.wants(conn):
                subscriber.put(kind, snapshot, routine=routine)

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def subscribers(self) -> int:
        """How many streams are open."""
        return sum(map(len, self._subscribers.values()))


class Watch(WatchElement):
    """Answer a monitor stream from `hub`."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        async with aclosing(self.hub.watch(selector)) as events:
            async for event in events:
                yield event
