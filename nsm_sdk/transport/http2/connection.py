# SPDX-License-Identifier: Apache-2.0
"""One HTTP/2 connection, as both ends see it.

Does:  gives frames to their streams, keeps the windows of the connection, answers pings.
Place: on a `Wire`; `client` and `server` derive from it.
State: streams, windows, the peer's table, a header block that is half read.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import anyio

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.frames import Broken, Code, StreamBroken
from nsm_sdk.transport.http2.headers import Decoder, Fixed, Pairs, encode
from nsm_sdk.transport.http2.stream import Stream
from nsm_sdk.transport.http2.wire import Wire
from nsm_sdk.transport.settings import MAX_METADATA

S = TypeVar("S", bound=Stream)
C = TypeVar("C", bound="Connection[Any]")

ROOM: Final = 8 << 20
"""Bytes that a peer may have on their way on one connection. Streams have windows of their own, so it is never the
slowest reader that decides."""
ASSEMBLING: Final = 4
"""How many messages of the largest size may be arriving at once on one connection."""
TOO_LARGE: Final = 4
"""How many times the metadata allowed ends the connection of a peer that sends it; less ends only the call."""
GIVEN_UP: Final = 1.0
"""Seconds that the event loop gets to close a socket that was broken."""
CALM: Final = 32_768
"""What a peer may spend at once on frames that make work and ask for nothing; a PING costs 2, others as below."""
CALM_EACH_SECOND: Final = 4_000.0
"""What it gets back in a second, besides what messages and answers give back."""
RESET_COST: Final = 8
"""What it costs to take a call back before it is answered, or to make one that has to be reset."""
SETTINGS_COST: Final = 8
CUT: Final = 32_768
"""How many streams that we ended before the peer did are remembered: what comes for them was on its way."""
_SHARE: Final = 64 << 10


class Connections(Generic[C]):
    """The open connections of one listener, or of one dialer.

    They are held here and nowhere else for certain: whoever opened one may be gone before it is closed.
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


class Connection(Wire, Generic[S]):
    """Either end."""

    def __init__(self, among: Connections[Any], *, max_message: int, ping_every: float) -> None:
        super().__init__(ping_every=ping_every)
        self.among = among
        self.max_message = max_message
        self.streams: dict[int, S] = {}
        self.blocked: dict[Stream, None] = {}
        """Streams that have something to send and wait for the window of the connection, the next one first."""
        self.window = frames.WINDOW
        """Bytes that the peer allows us to send on all streams together."""
        self.peer_window = frames.WINDOW
        self.peer_frame = frames.FRAME_SIZE
        self.peer_streams = math.inf
        self.peer_headers = math.inf
        self.assembling = 0
        """Bytes of messages that have arrived in part."""
        self.highest = 0
        """The highest stream that was ever named; those above `last` were not taken."""
        self.ready = False
        """Whether the peer has introduced itself."""
        self.decoder = Decoder(TOO_LARGE * MAX_METADATA)
        self._budget = float(CALM)
        self._refilled = self._loop.time()
        self._cut: dict[int, None] = {}
        self._room = ROOM
        self._block: tuple[int, int, bytearray] | None = None

    # --- what the ends add

    @abstractmethod
    def opened(self, id: int, fields: dict[str, str] | None, end: bool) -> None:
        """Headers for a stream that is not open; None where they are malformed."""

    @abstractmethod
    def expects(self, stream: S | None, end: bool) -> frozenset[str]:
        """Which pseudo-headers a block for this stream has to have."""

    @abstractmethod
    def introduced(self) -> None:
        """The peer's settings have come."""

    @abstractmethod
    def leave(self) -> None:
        """End in good order."""

    def told_to_leave(self, last: int, code: int, text: str) -> None:
        """The peer will end the connection, and handles no stream after `last`."""

    def pinged_back(self, payload: bytes) -> None:
        """The peer has answered a ping."""

    @staticmethod
    def terms(own: dict[int, int]) -> bytes:
        """The settings of an end, and the window of the connection."""
        return frames.settings({**own, frames.MAX_HEADER_LIST_SIZE: MAX_METADATA}) + frames.window_update(
            0, ROOM - frames.WINDOW
        )

    # --- what the socket says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        super().connection_made(transport)
        self.among.add(self)

    def ended(self) -> None:
        self.among.discard(self)

    def broken(self, text: str) -> None:
        for stream in list(self.streams.values()):
            stream.gone(text, None)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.paused = False
        for stream in list(self.streams.values()):
            stream.wake()

    # --- sending

    def headers(self, stream: int, fixed: Fixed, varying: Pairs = (), *, end: bool = False) -> None:
        """Send headers or trailers."""
        block = encode(fixed, varying)
        self.write(frames.header_frames(stream, block, frames.END_STREAM if end else 0, self.peer_frame))

    def pump(self) -> None:
        """Send what waits, each stream a share in turn, as far as windows go."""
        while self.blocked and self.window > 0:
            stream = next(iter(self.blocked))
            del self.blocked[stream]
            self.window -= stream.pump(min(self.window, _SHARE))
            if stream.pending and stream.window > 0:
                # To the end of the row; one without a window of its own comes back when it grows.
                self.blocked[stream] = None

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        self.streams.pop(stream.id, None)
        self.blocked.pop(stream, None)

    # --- the peer's budget

    def spend(self, cost: int) -> None:
        """Take what a frame costs from the peer's budget; raises Broken when it is used up."""
        self._budget -= cost
        if self._budget < 0:
            now = self._loop.time()
            self._budget = min(self._budget + (now - self._refilled) * CALM_EACH_SECOND, CALM)
            self._refilled = now
            if self._budget < 0:
                raise Broken(Code.ENHANCE_YOUR_CALM, "too many frames that make work and ask for nothing")

    def earn(self, gain: int) -> None:
        """Give something back for what is worth its cost."""
        if self._budget < CALM:
            self._budget += gain

    def note_cut(self, id: int) -> None:
        """Remember a stream that we end before the peer does."""
        self._cut[id] = None
        if len(self._cut) > CUT:
            del self._cut[next(iter(self._cut))]

    def late(self, id: int) -> None:
        """A frame that only an open stream may get, for one that is over: it was on its way, or breaks the protocol."""
        self._known(id)
        if id not in self._cut:
            raise Broken(Code.STREAM_CLOSED, "a frame for a stream that is over")

    # --- reading

    def frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or id != self._block[0]):
            raise Broken(Code.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.ready and kind != frames.SETTINGS:
            raise Broken(Code.PROTOCOL_ERROR, "the peer does not begin with its settings")
        try:
            self._frame(kind, flags, id, payload)
        except StreamBroken as error:
            self._break_off(id, error)

    def _break_off(self, id: int, error: StreamBroken) -> None:
        stream = self.streams.get(id)
        if stream is not None:
            stream.sent = True
            stream.gone(str(error), error.code)
        self.spend(RESET_COST)
        self.note_cut(id)
        self.write(frames.reset(id, error.code))

    def _frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if kind == frames.DATA:
            self._data(flags, id, payload)
        elif kind == frames.HEADERS:
            bare = frames.bare(payload, flags)
            self._begin_block(flags, id, bare)
            if flags & frames.PRIORITISED and frames.parent(payload, flags) == id:
                raise StreamBroken(Code.PROTOCOL_ERROR, "a stream depends on itself")
        elif kind == frames.CONTINUATION:
            self._continue_block(flags, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._more(id, frames.number(payload) & frames.LARGEST)
        elif kind == frames.RST_STREAM:
            code = frames.number(payload)
            self._known(id)
            if (stream := self.streams.get(id)) is not None:
                cost, stream.ended = stream.reset_cost, True
                stream.gone("the stream was reset", code)
                self.spend(cost)
            else:
                self.spend(1)
        elif kind == frames.SETTINGS:
            self._settings(flags, id, payload)
        elif kind == frames.PING:
            if id or len(payload) != 8:
                raise Broken(Code.FRAME_SIZE_ERROR if len(payload) != 8 else Code.PROTOCOL_ERROR, "no ping")
            self.spend(2)
            if flags & frames.ACK:
                self.pinged_back(payload)
            else:
                self.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.GOAWAY:
            if id:
                raise Broken(Code.PROTOCOL_ERROR, "a GOAWAY for a stream")
            self.spend(SETTINGS_COST)
            last, code, text = frames.read_goaway(payload)
            self.leaving = True
            self.told_to_leave(last, code, f"GOAWAY: {_name(code)} {text}".strip())
        elif kind == frames.PUSH_PROMISE:
            raise Broken(Code.PROTOCOL_ERROR, "nobody may push")
        else:
            # Unknown kinds are to be ignored; priorities are without effect.
            self.spend(1)
            if kind == frames.PRIORITY:
                self._check_priority(id, payload)

    @staticmethod
    def _check_priority(id: int, payload: bytes) -> None:
        if not id:
            raise Broken(Code.PROTOCOL_ERROR, "a priority without a stream")
        if len(payload) != 5:
            raise StreamBroken(Code.FRAME_SIZE_ERROR, "a priority of a wrong length")
        if frames.parent(payload, 0) == id:
            raise StreamBroken(Code.PROTOCOL_ERROR, "a stream depends on itself")

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        self._room -= len(payload)
        if self._room < 0:
            raise Broken(Code.FLOW_CONTROL_ERROR, "more data than the window of the connection allows")
        if self._room < ROOM // 2:
            self.write(frames.window_update(0, ROOM - self._room))
            self._room = ROOM
        stream = self.streams.get(id)
        if stream is None:
            self.late(id)
            if flags & frames.PADDED:
                frames.bare(payload, frames.PADDED)
            self.spend(1)
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
        end = bool(flags & frames.END_STREAM)
        stream = self.streams.get(id)
        try:
            fields = self.decoder.fields(block, self.expects(stream, end))
        except StreamBroken:
            if stream is None:
                self.opened(id, None, end)
            raise
        if stream is None:
            self.opened(id, fields, end)
        elif stream.ended:
            raise StreamBroken(Code.STREAM_CLOSED, "headers after the end of a stream")
        else:
            stream.ended = end
            stream.headers(fields, end)

    def _known(self, id: int) -> None:
        """A frame for a stream that was never opened breaks the protocol; one for a stream that is over is late."""
        if not id or id > self.highest:
            raise Broken(Code.PROTOCOL_ERROR, "a frame for a stream that was never opened")

    def _more(self, id: int, size: int) -> None:
        self.spend(1)
        if not size:
            raise Broken(Code.PROTOCOL_ERROR, "a window grows by nothing")
        if id:
            stream = self.streams.get(id)
            if stream is None:
                self._known(id)
                return
            stream.window += size
            if stream.window > frames.LARGEST:
                raise StreamBroken(Code.FLOW_CONTROL_ERROR, "a window is too large")
            if stream.pending:
                self.blocked[stream] = None
        else:
            self.window += size
            if self.window > frames.LARGEST:
                raise Broken(Code.FLOW_CONTROL_ERROR, "a window is too large")
        if self.blocked:
            self.pump()

    def _settings(self, flags: int, id: int, payload: bytes) -> None:
        if id or (flags & frames.ACK and payload):
            raise Broken(Code.PROTOCOL_ERROR if id else Code.FRAME_SIZE_ERROR, "no settings")
        if flags & frames.ACK:
            if not self.ready:
                raise Broken(Code.PROTOCOL_ERROR, "the peer does not begin with its settings")
            self.spend(1)
            return
        self.spend(SETTINGS_COST)
        for key, value in frames.read_settings(payload):
            if key == frames.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
            elif key == frames.INITIAL_WINDOW_SIZE:
                for stream in self.streams.values():
                    stream.window += value - self.peer_window
                    if stream.pending:
                        self.blocked[stream] = None
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
