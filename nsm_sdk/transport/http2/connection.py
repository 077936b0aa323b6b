# SPDX-License-Identifier: Apache-2.0
"""One HTTP/2 connection, as both ends see it.

Does:  reads frames and gives them to their streams, keeps the windows of the connection, answers pings, pings a peer
       that is silent, and ends a connection whose peer breaks the protocol or does not read.
Place: an asyncio protocol, on a Unix or TCP socket; `client` and `server` derive from it.
State: streams, windows, tables, what is half read.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar, cast

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.frames import Broken, Code
from nsm_sdk.transport.http2.headers import Decoder, Encoder, Fixed, Pairs
from nsm_sdk.transport.http2.stream import Stream
from nsm_sdk.transport.settings import MAX_METADATA

S = TypeVar("S", bound=Stream)

ROOM: Final = 8 << 20
"""Bytes that a peer may have on their way on one connection. Streams have windows of their own, so it is never the
slowest reader that decides."""
UNWRITTEN: Final = 32 << 20
"""Bytes that wait for a peer to read before it counts as gone."""
ASSEMBLING: Final = 4
"""How many messages of the largest size may be arriving at once on one connection."""
TOO_LARGE: Final = 4
"""How many times the metadata allowed ends the connection of a peer that sends it; less ends only the call."""
PING_WAITS: Final = 20.0
"""Seconds in which a ping is to be answered."""
_SHARE: Final = 64 << 10
_PING: Final = b"nsm_sdk!"


class Connection(asyncio.Protocol, Generic[S]):
    """Either end. `ping_every`: seconds of silence before a ping."""

    def __init__(self, *, max_message: int, ping_every: float) -> None:
        self.max_message = max_message
        self.streams: dict[int, S] = {}
        self.blocked: dict[Stream, None] = {}
        """Streams that have something to send and no window, the next one first."""
        self.window = frames.WINDOW
        """Bytes that the peer allows us to send on all streams together."""
        self.peer_window = frames.WINDOW
        self.peer_frame = frames.FRAME_SIZE
        self.peer_streams = math.inf
        self.peer_headers = math.inf
        self.assembling = 0
        """Bytes of messages that have arrived in part."""
        self.paused = False
        """Whether the peer does not read as fast as we write."""
        self.ready = False
        """Whether the peer has introduced itself."""
        self.leaving = False
        """Whether no new streams may be opened: the connection is ending, or has."""
        self.connected = False
        """Whether there ever was a socket."""
        self.closed = False
        self.last = 0
        """The highest stream that was opened, by whoever opens them."""
        self.transport: asyncio.Transport
        self._encoder = Encoder()
        self.decoder = Decoder(TOO_LARGE * MAX_METADATA)
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._room = ROOM
        self._block: tuple[int, int, bytearray] | None = None
        self._out: list[bytes] | None = None
        self._ping_every = ping_every
        self._heard = 0.0
        self._pinging: asyncio.TimerHandle | None = None

    # --- what the ends add

    @abstractmethod
    def hello(self) -> bytes:
        """What is sent first, besides the window."""

    @abstractmethod
    def opened(self, id: int, fields: dict[str, str], end: bool) -> None:
        """Headers for a stream that is none of ours."""

    @abstractmethod
    def introduced(self) -> None:
        """The peer's settings have come."""

    def told_to_leave(self, last: int, text: str) -> None:
        """The peer will end the connection, and handles no stream after `last`."""

    def ended(self) -> None:
        """The connection is closed, and all its streams are over."""

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
        self.transport.write(self.hello() + frames.window_update(0, ROOM - frames.WINDOW))
        self._pinging = self._loop.call_later(self._ping_every, self._ping)

    def data_received(self, data: bytes) -> None:
        """Read all frames that are whole, then send what they caused in one piece."""
        self._heard = self._loop.time()
        with self.together():
            try:
                self._read(self._rest + data if self._rest else data)
            except Broken as error:
                self._end(error.code, str(error))

    def eof_received(self) -> None:
        """The peer sends no more: the connection closes."""

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.paused = False
        for stream in list(self.streams.values()):
            stream.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """All streams are over."""
        self._closing(f"connection closed{f': {exc}' if exc else ''}")
        self.ended()

    # --- sending

    def write(self, data: bytes) -> None:
        """Send, together with all that the frames at hand cause."""
        if self._out is not None:
            self._out.append(data)
        elif not self.closed and not self.transport.is_closing():
            self.transport.write(data)
            if self.paused and self.transport.get_write_buffer_size() > UNWRITTEN:
                self.abort("the peer does not read")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written inside goes out in one piece."""
        if self._out is not None:
            yield
            return
        out = self._out = []
        try:
            yield
        finally:
            self._out = None
            if out:
                self.write(b"".join(out))

    def headers(self, stream: int, fixed: Fixed, varying: Pairs = (), *, end: bool = False) -> None:
        """Send headers or trailers."""
        block = self._encoder.block(fixed, varying)
        self.write(frames.header_frames(stream, block, frames.END_STREAM if end else 0, self.peer_frame))

    def pump(self) -> None:
        """Send what waits, each stream a share in turn, as far as windows go."""
        waiting = list(self.blocked)
        while waiting and self.window > 0:
            again = []
            for stream in waiting:
                if self.window <= 0:
                    return
                self.blocked.pop(stream, None)
                self.window -= stream.pump(min(self.window, _SHARE))
                if stream.pending:
                    # To the end of the row.
                    self.blocked[stream] = None
                    if stream.window > 0:
                        again.append(stream)
            waiting = again

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        self.streams.pop(stream.id, None)
        self.blocked.pop(stream, None)

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
        if self._out:
            self.transport.write(b"".join(self._out))
            self._out.clear()
        self.transport.write(frames.goaway(self.last, code, text))
        self._closing(text or "connection closed")
        if self.transport.get_write_buffer_size():
            # Whoever does not read would keep the socket open.
            self.transport.abort()
        else:
            self.transport.close()

    def _closing(self, text: str) -> None:
        self.leaving = self.closed = True
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
        for stream in list(self.streams.values()):
            stream.gone(text, None)

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
            self._frame(kind, flags, stream & frames.LARGEST, data[at - size : at])
        self._rest = data[at:]

    def _frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or id != self._block[0]):
            raise Broken(Code.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.ready and kind != frames.SETTINGS:
            raise Broken(Code.PROTOCOL_ERROR, "the peer does not begin with its settings")
        if kind == frames.DATA:
            self._data(flags, id, payload)
        elif kind == frames.HEADERS:
            self._begin_block(flags, id, frames.bare(payload, flags))
        elif kind == frames.CONTINUATION:
            self._continue_block(flags, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._more(id, frames.number(payload) & frames.LARGEST)
        elif kind == frames.RST_STREAM:
            code = frames.number(payload)
            self._known(id)
            if (stream := self.streams.get(id)) is not None:
                stream.gone("the stream was reset", code)
        elif kind == frames.SETTINGS:
            self._settings(flags, id, payload)
        elif kind == frames.PING:
            if id or len(payload) != 8:
                raise Broken(Code.FRAME_SIZE_ERROR if len(payload) != 8 else Code.PROTOCOL_ERROR, "no ping")
            if not flags & frames.ACK:
                self.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.GOAWAY:
            last, code, text = frames.read_goaway(payload)
            self.leaving = True
            self.told_to_leave(last, f"GOAWAY: {_name(code)} {text}".strip())
        elif kind == frames.PUSH_PROMISE:
            raise Broken(Code.PROTOCOL_ERROR, "nobody may push")
        # Unknown kinds are to be ignored; priorities are without effect.

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        self._room -= len(payload)
        if self._room < 0:
            raise Broken(Code.FLOW_CONTROL_ERROR, "more data than the window of the connection allows")
        if self._room < ROOM // 2:
            self.write(frames.window_update(0, ROOM - self._room))
            self._room = ROOM
        stream = self.streams.get(id)
        if stream is None:
            self._known(id)
            return
        stream.data(payload, flags)
        if self.assembling > ASSEMBLING * (self.max_message + frames.WINDOW):
            raise Broken(Code.ENHANCE_YOUR_CALM, "too many large messages at once")

    def _begin_block(self, flags: int, id: int, block: bytes) -> None:
        if not id:
            raise Broken(Code.PROTOCOL_ERROR, "headers without a stream")
        if flags & frames.END_HEADERS:
            self._headers(id, flags, block)
        else:
            self._block = (id, flags, bytearray(block))

    def _continue_block(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise Broken(Code.PROTOCOL_ERROR, "a continuation of nothing")
        stream, first, block = self._block
        block += payload
        # Empty ones count too, so that nobody can send them for ever.
        if len(block) > TOO_LARGE * MAX_METADATA or not payload:
            raise Broken(Code.ENHANCE_YOUR_CALM, "headers are too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._headers(stream, first, bytes(block))

    def _headers(self, id: int, flags: int, block: bytes) -> None:
        fields = self.decoder.fields(block)
        end = bool(flags & frames.END_STREAM)
        stream = self.streams.get(id)
        if stream is None:
            self.opened(id, fields, end)
        elif stream.ended:
            raise Broken(Code.STREAM_CLOSED, "headers after the end of a stream")
        else:
            stream.ended = end
            stream.headers(fields, end)

    def _known(self, id: int) -> None:
        """A frame for a stream that was never opened breaks the protocol; one for a stream that is over is late."""
        if not id or id > self.last:
            raise Broken(Code.PROTOCOL_ERROR, "a frame for a stream that was never opened")

    def _more(self, id: int, size: int) -> None:
        if not size:
            raise Broken(Code.PROTOCOL_ERROR, "a window grows by nothing")
        if id:
            stream = self.streams.get(id)
            if stream is None:
                self._known(id)
                return
            stream.window += size
            grown = stream.window
        else:
            self.window += size
            grown = self.window
        if grown > frames.LARGEST:
            raise Broken(Code.FLOW_CONTROL_ERROR, "a window is too large")
        if self.blocked:
            self.pump()

    def _settings(self, flags: int, id: int, payload: bytes) -> None:
        if id or (flags & frames.ACK and payload):
            raise Broken(Code.PROTOCOL_ERROR if id else Code.FRAME_SIZE_ERROR, "no settings")
        if flags & frames.ACK:
            if not self.ready:
                raise Broken(Code.PROTOCOL_ERROR, "the peer does not begin with its settings")
            return
        for key, value in frames.read_settings(payload):
            if key == frames.HEADER_TABLE_SIZE:
                self._encoder.resize(value)
            elif key == frames.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
            elif key == frames.INITIAL_WINDOW_SIZE:
                for stream in self.streams.values():
                    stream.window += value - self.peer_window
                self.peer_window = value
            elif key == frames.MAX_FRAME_SIZE:
                # Larger frames save little, and would keep other streams waiting.
                self.peer_frame = min(value, frames.FRAME_SIZE)
            elif key == frames.MAX_HEADER_LIST_SIZE:
                self.peer_headers = value
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.ready:
            self.ready = True
            self.introduced()
        self.pump()


def _name(code: int) -> str:
    return Code(code).name if code in Code._value2member_map_ else f"code {code}"
