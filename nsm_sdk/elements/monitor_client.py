# SPDX-License-Identifier: Apache-2.0
"""Following what the next hop says of our connections.

Does:  keeps one monitor stream per peer for all connections of this hop that go there, or, where the peer's policy
       refuses that, one per connection; tells each connection's listener what it hears, and when the peer is lost.
Place: a service of `Monitor` (hops between) and of healing (clients).
State: one stream per peer, one listener per connection.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum

import anyio

from nsm_sdk.api import Connection, ConnectionEvent, EventType, PathSegment, Selector
from nsm_sdk.api.limits import excess
from nsm_sdk.core import Backoff, Call, Runtime, Service
from nsm_sdk.elements.connect import NextHop
from nsm_sdk.errors import ConnectionRetired, NsmError, Status

logger = logging.getLogger("nsm_sdk.elements")

PAUSES = Backoff(0.05, 5.0, low=0.5)
"""Pauses between attempts to reach a peer that is lost; doubling, with jitter; seconds."""
REFUSED_PAUSE = 60.0
"""Pause after a peer has refused a stream; seconds."""
UNCLAIMED = 1024
"""Events kept for connections whose first Request has not returned yet."""
UNCLAIMED_SIZE = 8192
"""Bytes of the largest of them."""
REFUSALS = frozenset({Status.PERMISSION_DENIED, Status.UNIMPLEMENTED, Status.UNAUTHENTICATED})


_KINDS = {int(kind): kind for kind in EventType}


class News(StrEnum):
    """What a listener is told."""

    EVENT = "event"
    """The peer said something of the connection."""
    LOST = "lost"
    """The stream broke; the peer may be gone."""
    MISSING = "missing"
    """The peer is there, but does not know the connection any more."""
    REFUSED = "refused"
    """The peer's policy keeps us from watching; that says nothing of the connection."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One piece of news of one connection."""

    news: News
    conn: Connection | None = field(default=None, repr=False)
    kind: EventType = EventType.UPDATE
    error: NsmError | None = None


Listener = Callable[[Heard], None]


class Following:
    """One connection that is followed; `stop` ends it."""

    __slots__ = ("_follower", "id", "index", "key", "listener", "name", "opened")

    def __init__(self, follower: Follower, key: str, name: str, id: str, index: int, listener: Listener) -> None:
        self._follower = follower
        self.key = key
        self.name = name
        self.id = id
        self.index = index
        self.listener = listener
        self.opened = 0

    def stop(self) -> None:
        """Tell nothing more."""
        self._follower._stop(self)

    def confirmed(self) -> None:
        """A Request has just returned: only a stream that is opened from now on can lack the connection."""
        self.opened = self._follower.mark()

    def accepts(self, conn: Connection) -> bool:
        """Whether `conn`, as the peer sees it, is the present incarnation of this connection, seen one hop away."""
        segments = conn.path.path_segments
        return (
            len(segments) > self.index
            and segments[self.index].id == self.id
            and conn.path.index in (self.index, self.index + 1)
        )


class _Peer:
    """The streams to one peer under one name of ours."""

    def __init__(self, name: str, far: NextHop) -> None:
        self.name = name
        self.far = far
        self.listeners: dict[str, Following] = {}
        self.unclaimed: OrderedDict[str, tuple[EventType, Connection, int]] = OrderedDict()
        """By connection id: the last event, and when it came."""
        self.streams: dict[str, anyio.CancelScope] = {}
        """By connection id; the stream for all of them under the empty text."""
        self.single = True
        self.opened = 0


class Follower(Service):
    """Monitor streams to next hops."""

    def __init__(self) -> None:
        self._peers: dict[tuple[str, str], _Peer] = {}
        self._runtime: Runtime | None = None
        self._count = 0

    async def start(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def stop(self) -> None:
        for peer in self._peers.values():
            for scope in peer.streams.values():
                scope.cancel()
        self._peers.clear()
        self._runtime = None

    def mark(self) -> int:
        """Now, for `follow`: to be taken before a Request is sent."""
        self._count += 1
        return self._count

    def follow(self, conn: Connection, far: NextHop, listener: Listener, *, since: int = 0) -> Following | None:
        """Tell `listener` of `conn` (as this hop sees it) from now on, and of what has come since the mark `since`.

        What came before speaks of what the Request has renewed. None where the peer offers no monitor.
        """
        if far.bound.monitor is None or self._runtime is None:
            return None
        own = conn.path.path_segments[conn.path.index]
        peer = self._peer(own.name, far)
        following = Following(self, far.url, own.name, own.id, conn.path.index, listener)
        following.confirmed()
        peer.listeners[own.id] = following
        self._stream(peer, "" if peer.single else own.id)
        missed = peer.unclaimed.pop(own.id, None)
        if missed is not None and missed[2] > since and following.accepts(missed[1]):
            listener(Heard(News.EVENT, missed[1], missed[0]))
        return following

    def _peer(self, name: str, far: NextHop) -> _Peer:
        peer = self._peers.get((name, far.url))
        if peer is None:
            peer = self._peers[name, far.url] = _Peer(name, far)
        return peer

    def _stop(self, following: Following) -> None:
        peer = self._peers.get((following.name, following.key))
        if peer is None or peer.listeners.get(following.id) is not following:
            return
        del peer.listeners[following.id]
        own = peer.streams.pop(following.id, None)
        if own is not None:
            own.cancel()
        if not peer.listeners:
            for scope in peer.streams.values():
                scope.cancel()
            del self._peers[following.name, following.key]

    def _stream(self, peer: _Peer, conn_id: str) -> None:
        runtime = self._runtime
        if conn_id not in peer.streams and runtime is not None:
            peer.streams[conn_id] = runtime.spawn(lambda: self._read(peer, conn_id, runtime), f"follow {peer.far.url}")

    async def _read(self, peer: _Peer, conn_id: str, runtime: Runtime) -> None:
        """Read one stream, again and again, until its scope is cancelled.

        `runtime` is handed in: the task may have its first turn when the follower has stopped already.
        """
        failures = 0
        reopened = False
        while True:
            try:
                self._count += 1
                peer.opened = self._count
                async with aclosing(self._open(peer, conn_id, runtime)) as stream:
                    async for event in stream:
                        failures, reopened = 0, False
                        self._event(peer, conn_id, event)
                error = NsmError("the stream ended", status=Status.UNAVAILABLE)
            except NsmError as raised:
                error = raised
            if error.status in REFUSALS or (not conn_id and error.status is Status.RESOURCE_EXHAUSTED):
                # Of so many connections that one message does not hold them, each is asked for alone.
                if not conn_id:
                    self._split(peer)
                    return
                self._tell(peer, conn_id, Heard(News.REFUSED, error=error))
                await anyio.sleep(REFUSED_PAUSE)
                continue
            retired = isinstance(error, ConnectionRetired) and not reopened and not failures
            if retired:
                # The stream's own connection has come of age; what happened to those that it tells of, a new one says.
                reopened = True
            elif not failures:
                self._tell(peer, conn_id, Heard(News.LOST, error=error))
            pause = PAUSES.pause(failures, runtime.dice)
            failures += not retired
            await anyio.sleep(pause)

    def _open(self, peer: _Peer, conn_id: str, runtime: Runtime) -> AsyncGenerator[ConnectionEvent, None]:
        assert peer.far.bound.monitor is not None
        selector = Selector(path_segments=[PathSegment(name=peer.name, id=conn_id)])
        return peer.far.bound.monitor.watch(Call(runtime), selector)

    def _split(self, peer: _Peer) -> None:
        """The peer refuses one stream for all: from now on one per connection."""
        logger.info("%s refuses one monitor stream for all connections; opening one for each", peer.far.url)
        peer.single = False
        peer.streams.pop("", None)
        for conn_id in peer.listeners:
            self._stream(peer, conn_id)

    def _tell(self, peer: _Peer, conn_id: str, heard: Heard) -> None:
        for following in list(peer.listeners.values()) if not conn_id else [peer.listeners.get(conn_id)]:
            if following is not None:
                following.listener(heard)

    def _event(self, peer: _Peer, conn_id: str, event: ConnectionEvent) -> None:
        kind = _KINDS.get(event.type)
        if kind is None:
            return  # a kind of event that nobody defined yet
        seen: set[str] = set()
        for conn in event.connections.values():
            if what := excess(conn):
                logger.debug("%s tells too much of a connection: %s", peer.far.url, what)
                continue
            for segment in conn.path.path_segments:
                if segment.name != peer.name:
                    continue
                seen.add(segment.id)
                following = peer.listeners.get(segment.id)
                if following is None:
                    # What is big is not kept for somebody who may never come: there may be many of it.
                    if conn.ByteSize() <= UNCLAIMED_SIZE:
                        peer.unclaimed[segment.id] = (kind, conn, self.mark())
                    if len(peer.unclaimed) > UNCLAIMED:
                        peer.unclaimed.popitem(last=False)
                elif following.accepts(conn):
                    following.listener(Heard(News.EVENT, conn, kind))
        if kind is EventType.INITIAL_STATE_TRANSFER:
            for following in list(peer.listeners.values()) if not conn_id else [peer.listeners.get(conn_id)]:
                # Only a stream opened after the Request had returned can be believed to lack the connection.
                if following is not None and following.id not in seen and following.opened < peer.opened:
                    following.listener(Heard(News.MISSING))
