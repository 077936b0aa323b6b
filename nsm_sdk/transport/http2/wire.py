# SPDX-License-Identifier: Apache-2.0
"""The socket below a connection.

Does:  cuts what arrives into frames, sends what belongs together in one piece, pings a peer that is silent, and ends a
       connection whose peer breaks the protocol or does not read.
Place: an asyncio protocol, on a Unix or TCP socket; `connection` says what frames mean.
State: what is half read, what is to be sent together, when the peer was last heard.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final, cast

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.frames import Broken, Code

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

    def __init__(self, wire: Wire) -> None:
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


class Wire(asyncio.Protocol):
    """Either end. `ping_every`: seconds of silence before a ping."""

    def __init__(self, *, ping_every: float) -> None:
        self.transport: asyncio.Transport
        self.paused = False
        """Whether the peer does not read as fast as we write."""
        self.leaving = False
        """Whether no new streams may be opened: the connection is ending, or has."""
        self.dismissed = False
        """Whether the peer knows already that the connection ends in good order, and with which stream."""
        self.connected = False
        """Whether there ever was a socket."""
        self.closed = False
        self.last = 0
        """The highest stream that was opened, by whoever opens them."""
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self.together = Together(self)
        self._ping_every = ping_every
        self._heard = 0.0
        self._pinging: asyncio.TimerHandle | None = None

    # --- what a connection adds

    @abstractmethod
    def hello(self) -> bytes:
        """What is sent first."""

    @abstractmethod
    def frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        """A frame has come. Raises Broken."""

    @abstractmethod
    def broken(self, text: str) -> None:
        """All streams are over."""

    def ended(self) -> None:
        """The socket is closed."""

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

    def data_received(self, data: bytes) -> None:
        """Read all frames that are whole, then send what they caused in one piece."""
        self._heard = self._loop.time()
        with self.together:
            try:
                self._read(self._rest + data if self._rest else data)
            except Broken as error:
                self._end(error.code, str(error))

    def eof_received(self) -> None:
        """The peer sends no more: the connection closes."""

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self.paused = True

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
            if self.paused and self.transport.get_write_buffer_size() > UNWRITTEN:
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

    # --- reading

    def _read(self, data: bytes) -> None:
        at, end, unpack = 0, len(data), frames.HEAD.unpack_from
        while end - at >= 9 and not self.closed:
            high, low, kind, flags, stream = unpack(data, at)
            size = high << 8 | low
            if size > frames.FRAME_SIZE:
                raise Broken(Code.FRAME_SIZE_ERROR, "a frame is too large")
            if end - at - 9 < size:
                break
            at += 9 + size
            self.frame(kind, flags, stream & frames.LARGEST, data[at - size : at])
        self._rest = data[at:]
