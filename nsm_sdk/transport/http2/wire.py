# SPDX-License-Identifier: Apache-2.0
"""The socket below a connection.

Does:  hands what arrives to the connection, sends what belongs together in one piece, pings a peer that is silent, and
       ends a connection whose peer breaks the protocol or does not read. `Connections` holds those that are open.
Place: an asyncio protocol, on a Unix or TCP socket; `connection` knows HTTP/2.
State: what is to be sent together, when the peer was last heard, who waits for room.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

import anyio

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.connection import Connection
from nsm_sdk.transport.http2.frames import Code
from nsm_sdk.transport.http2.stream import Stream

S = TypeVar("S", bound=Stream)
C = TypeVar("C", bound="Wire[Any]")

GIVEN_UP: Final = 1.0
"""Seconds that the event loop gets to close a socket that was broken."""

UNWRITTEN: Final = 32 << 20
"""Bytes that wait for a peer to read before it counts as gone."""
PING_WAITS: Final = 20.0
"""Seconds in which a ping is to be answered."""
LAST_READ: Final = 1.0
"""Seconds that a peer gets to read the last of what was written to it."""
_PING: Final = b"nsm_sdk!"


class Together:
    """What is written inside goes out in one piece."""

    __slots__ = ("_wire", "depth", "parts")

    def __init__(self, wire: Wire[Any]) -> None:
        self._wire = wire
        self.depth = 0
        self.parts: list[bytes] = []

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth and self.parts:
            parts, self.parts = self.parts, []
            self._wire.write(b"".join(parts))


class WaitingStream(Stream):
    """A stream whose writer waits for room."""

    __slots__ = ("_waiter",)

    def __init__(self, connection: Connection[Any], id: int) -> None:
        super().__init__(connection, id)
        self._waiter: asyncio.Future[None] | None = None

    async def room(self) -> None:
        """Wait until what was sent is on its way, or the stream is over, so that nothing piles up here."""
        while (self.pending or self.connection.paused) and self.id in self.connection.streams:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def wake(self) -> None:
        """Let `room` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connections(Generic[C]):
    """The open connections of one listener, or of one dialer.

    They are held here, because the calls and the pool that opened one may be gone before it is closed.
    """

    def __init__(self) -> None:
        self.open: set[C] = set()
        self.over = False
        """Whether new ones are broken off at once."""
        self._changed: asyncio.Event | None = None

    def add(self, connection: C) -> None:
        """One has a socket."""
        self.open.add(connection)
        if self.over:
            connection.abort("the hop was stopped")

    def discard(self, connection: C) -> None:
        """One has closed."""
        self.open.discard(connection)
        self.changed()

    def changed(self) -> None:
        """Let those who wait look again."""
        if self._changed is not None:
            self._changed.set()

    async def until(self, done: Callable[[], bool], seconds: float = math.inf) -> None:
        """Wait until `done()`, at most that long; it is asked again at each change."""
        with anyio.move_on_after(seconds):
            while not done():
                self._changed = asyncio.Event()
                await self._changed.wait()

    async def close(self, grace: float) -> None:
        """End them all: what is on its way gets `grace` seconds; without them they break at once."""
        for connection in list(self.open):
            connection.leave() if grace else connection.abort("the hop was stopped")
        for seconds in (grace, GIVEN_UP):
            await self.until(lambda: not self.open, seconds)
            for connection in list(self.open):
                connection.abort("the hop was stopped")


class Wire(Connection[S], asyncio.Protocol):
    """Either end. `ping_every`: seconds of silence before a ping."""

    def __init__(self, among: Connections[Any], *, client: bool, max_message: int, ping_every: float) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(client=client, max_message=max_message, now=self._loop.time)
        self.among = among
        self.transport: asyncio.Transport
        self.dismissed = False
        """Whether the peer knows already that the connection ends in good order, and with which stream."""
        self.connected = False
        """Whether there ever was a socket."""
        self._paused = False
        self.together = Together(self)
        self._ping_every = ping_every
        self._heard = 0.0
        self._pinging: asyncio.TimerHandle | None = None

    def leave(self) -> None:
        """End in good order."""
        self.close()

    def ended(self) -> None:
        """The socket is closed."""
        self.among.discard(self)

    @property
    def watched(self) -> bool:
        """Whether silence is worth a ping."""
        return True

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self.connected = True
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=1 << 20)
        self._heard = self._loop.time()
        self.transport.write(self.hello())
        self._pinging = self._loop.call_later(self._ping_every, self._ping)
        self.among.add(self)

    def data_received(self, data: bytes) -> None:
        """Read all frames that are whole, then send what they caused in one piece."""
        self._heard = self._loop.time()
        with self.together:
            self.receive(data)

    def failed(self, code: Code, text: str) -> None:
        self._end(code, text)

    def eof_received(self) -> None:
        """The peer sends no more: the connection closes."""

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self._paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._paused = False
        for stream in list(self.streams.values()):
            stream.wake()

    @property
    def paused(self) -> bool:
        return self._paused

    def broken(self, text: str) -> None:
        """All streams are over."""
        for stream in list(self.streams.values()):
            stream.gone(text, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """All streams are over."""
        self._closing(f"connection closed{f': {exc}' if exc else ''}")
        self.ended()

    # --- sending

    def write(self, data: bytes) -> None:
        """Send, together with all that the frames at hand cause."""
        if self.together.depth:
            self.together.parts.append(data)
        elif not self.closed and not self.transport.is_closing():
            self.transport.write(data)
            if self._paused and self.transport.get_write_buffer_size() > UNWRITTEN:
                self.abort("the peer does not read")

    def abort(self, text: str) -> None:
        """Break the connection, without waiting for anything."""
        self._closing(text)
        self.transport.abort()

    def close(self) -> None:
        """End the connection; what has been written still goes out."""
        self._end(Code.NO_ERROR, "")

    def _end(self, code: Code, text: str) -> None:
        if self.closed:
            return
        goodbye = b"" if self.dismissed and code == Code.NO_ERROR else frames.goaway(self.last, code, text)
        self.transport.write(b"".join((*self.together.parts, goodbye)))
        self.together.parts.clear()
        self._closing(text or "connection closed")
        self.transport.close()
        if self.transport.get_write_buffer_size():
            # A peer that does not read would keep the socket open.
            self._loop.call_later(LAST_READ, self.transport.abort)

    def _closing(self, text: str) -> None:
        self.leaving = self.closed = True
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
        self.broken(text)

    def _ping(self) -> None:
        now = self._loop.time()
        rest = self._heard + self._ping_every - now
        if rest > 0 or not self.watched:
            self._pinging = self._loop.call_later(rest if rest > 0 else self._ping_every, self._ping)
            return
        self.write(frames.frame(frames.PING, 0, 0, _PING))
        self._pinging = self._loop.call_later(PING_WAITS, self._unheard, now)

    def _unheard(self, since: float) -> None:
        if self._heard <= since:
            self.abort("ping timeout")
        else:
            self._pinging = self._loop.call_later(0, self._ping)
