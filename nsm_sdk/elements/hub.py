# SPDX-License-Identifier: Apache-2.0
"""The table of a hop's connections, and everybody who watches it.

Does:  `Hub` holds the last event of each connection and hands new ones to the subscribers that asked for it.
       Connections and subscribers are indexed by (segment name, id): an event never scans all streams. `Watch`
       answers a stream.
Place: `Watch` alone makes the monitor chain of a hop; `Monitor` publishes into the same hub.
State: one snapshot per connection, one bounded queue per subscriber.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import anyio

from nsm_sdk.api import Connection, ConnectionEvent, EventType, Selector, Snapshot, State, matches
from nsm_sdk.core import Call, Runtime, Service, WatchElement, WatchNext

Key = tuple[str, str]
"""(segment name, segment id); an empty text stands for any."""

QUEUE = 256
"""Events that may wait for a slow subscriber before updates of one connection are merged into the last of them."""


class Subscriber:
    """One open stream."""

    __slots__ = ("key", "queue", "selector", "wake")

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self.key = _selector_key(selector)
        self.queue: deque[ConnectionEvent] = deque()
        self.wake = anyio.Event()

    def put(self, event: ConnectionEvent) -> None:
        """Queue without waiting: a slow reader delays nobody."""
        self.queue.append(event)
        if len(self.queue) > QUEUE:
            self._merge()
        self.wake.set()

    def _merge(self) -> None:
        """Keep the last event of each connection; each event here speaks of one."""
        last: dict[str, ConnectionEvent] = {}
        for event in self.queue:
            conn_id = next(iter(event.connections))
            last.pop(conn_id, None)
            last[conn_id] = event
        self.queue = deque(last.values())


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


def _keys(conn: Connection) -> Iterator[Key]:
    """Every key under which a subscriber may wait for `conn`."""
    yield ("", "")
    for segment in conn.path.path_segments:
        yield (segment.name, segment.id)
        yield (segment.name, "")
        yield ("", segment.id)


class Hub(Service):
    """Connections of this hop, for peers that monitor them."""

    def __init__(self) -> None:
        self._connections: dict[str, Snapshot] = {}
        self._keys: dict[str, frozenset[Key]] = {}
        self._by_key: dict[Key, set[str]] = {}
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
        self._by_key.clear()
        self._keys.clear()

    def update(self, conn: Connection) -> Snapshot:
        """The connection has changed, or was confirmed; answers what is stored now."""
        snapshot = Snapshot.of(conn)
        self._connections[conn.id] = snapshot
        keys = frozenset(key for key in _keys(conn) if all(key))
        before = self._keys.get(conn.id, frozenset())
        if keys != before:
            self._unindex(conn.id, before - keys)
            for key in keys - before:
                self._by_key.setdefault(key, set()).add(conn.id)
            self._keys[conn.id] = keys
        self._tell(EventType.UPDATE, conn)
        return snapshot

    def delete(self, conn: Connection) -> None:
        """The connection is closed."""
        self._connections.pop(conn.id, None)
        self._unindex(conn.id, self._keys.pop(conn.id, frozenset()))
        self._tell(EventType.DELETE, conn)

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
        key = _selector_key(selector)
        ids = self._by_key.get(key, ()) if all(key) else self._connections
        found = (self._connections[conn_id].connection() for conn_id in ids)
        return [conn for conn in found if matches(selector, conn)]

    async def watch(self, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        """The matching connections, then what changes, until the hop stops or the reader goes."""
        subscriber = Subscriber(selector)
        group = self._subscribers.setdefault(subscriber.key, {})
        group[subscriber] = None
        try:
            initial = ConnectionEvent(type=EventType.INITIAL_STATE_TRANSFER)
            for conn in self.connections(selector):
                initial.connections[conn.id].CopyFrom(conn)
            yield initial
            while not self._closed.is_set():
                while subscriber.queue:
                    yield subscriber.queue.popleft()
                if not self._closed.is_set():
                    subscriber.wake = anyio.Event()
                    await subscriber.wake.wait()
        finally:
            group.pop(subscriber, None)
            if not group:
                self._subscribers.pop(subscriber.key, None)

    def _unindex(self, conn_id: str, keys: frozenset[Key]) -> None:
        for key in keys:
            ids = self._by_key[key]
            ids.discard(conn_id)
            if not ids:
                del self._by_key[key]

    def _tell(self, kind: EventType, conn: Connection) -> None:
        event: ConnectionEvent | None = None
        told: set[int] = set()
        for key in _keys(conn):
            for subscriber in self._subscribers.get(key, ()):
                if id(subscriber) in told or not matches(subscriber.selector, conn):
                    continue
                told.add(id(subscriber))
                if event is None:
                    event = ConnectionEvent(type=kind)
                    event.connections[conn.id].CopyFrom(conn)
                subscriber.put(event)

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
