# SPDX-License-Identifier: Apache-2.0
"""One HTTP/2 connection, as both ends see it: bytes in, events out, and no socket.

Does:  cuts what arrives into frames, gives them to their streams, keeps the windows of the connection, answers pings,
       and refuses what the protocol forbids.
Place: below `wire`, which has the socket; `client` and `server` say what is done with what arrives.
State: streams, windows, the peer's table and its budget, what is half read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.frames import Broken, Code, StreamBroken
from nsm_sdk.transport.http2.headers import REQUEST, RESPONSE, TRAILERS, Decoder, Fixed, Pairs, encode
from nsm_sdk.transport.http2.stream import Event, Stream
from nsm_sdk.transport.settings import MAX_METADATA, MAX_STREAMS

S = TypeVar("S", bound=Stream)

ROOM: Final = 8 << 20
"""Bytes that a peer may have on their way on one connection. Streams have windows of their own, so it is never the
slowest reader that decides."""
ASSEMBLING: Final = 4
"""How many messages of the largest size may be arriving at once on one connection."""
TOO_LARGE: Final = 4
"""How many times the metadata allowed ends the connection of a peer that sends it; less ends only the call."""
CALM: Final = 32_768
"""What a peer may spend at once on frames that make work and ask for nothing; a PING costs 2, others as below."""
CALM_EACH_SECOND: Final = 4_000.0
"""What it gets back in a second, besides what messages and answers give back."""
RESET_COST: Final = 8
"""What it costs to take a call back before it is answered, or to make one that has to be reset."""
SETTINGS_COST: Final = 8
STREAMS_AT_COST: Final = 32
"""How many open streams make new settings one more expensive, where they change the window of each."""
CUT: Final = 32_768
"""How many streams that we ended before the peer did are remembered: what comes for them was on its way."""
_SHARE: Final = 64 << 10


class Connection(Generic[S]):
    """Either end, without a socket: `receive` takes bytes, `write` gets what is to be sent.

    An end that acts on what arrives overrides the hooks here and of its streams, and is called in place. Where it does
    not, `events` lists what has happened, and `take` returns what is to be sent. `now` is the clock, in seconds.
    """

    def __init__(self, *, client: bool, max_message: int, now: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self.max_message = max_message
        self.events: list[Event] = []
        self.output: list[bytes] = []
        self.leaving = False
        """Whether no new streams may be opened: the connection is ending, or has."""
        self.closed = False
        self.last = 0
        """The highest stream that was taken, of those that the peer opens."""
        self.next = 1
        """The number of the next stream that we open."""
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
        self._now = now
        self._rest = b""
        self._preface = b"" if client else frames.PREFACE
        self._budget = float(CALM)
        self._refilled = now()
        self._cut: dict[int, None] = {}
        self._room = ROOM
        self._block: tuple[int, int, bytearray] | None = None

    # --- hooks: what arrives for the connection itself

    def introduced(self) -> None:
        """The peer's settings have come."""
        self.events.append(Event("introduced"))

    def foreign(self) -> None:
        """The peer does not begin as HTTP/2 does."""
        self.events.append(Event("foreign"))

    def failed(self, code: Code, text: str) -> None:
        """The peer has broken the protocol: the connection ends with a GOAWAY of this code."""
        self.write(frames.goaway(self.last, code, text))
        self.closed = self.leaving = True
        self.events.append(Event("failed", 0, (code, text)))

    def told_to_leave(self, last: int, code: int, text: str) -> None:
        """The peer will end the connection, and handles no stream after `last`."""
        self.events.append(Event("told_to_leave", 0, (last, code, text)))

    def limited(self) -> None:
        """The peer has said how many streams it allows, which may be more than before."""

    def pinged_back(self, payload: bytes) -> None:
        """The peer has answered a ping."""
        self.events.append(Event("pinged_back", 0, payload))

    def accept(self, id: int) -> S | None:
        """The stream that the peer has opened; None where it is refused."""
        return cast(S, Stream(self, id))

    @staticmethod
    def terms(own: dict[int, int]) -> bytes:
        """The settings of an end, and the window of the connection."""
        return frames.settings({**own, frames.MAX_HEADER_LIST_SIZE: MAX_METADATA}) + frames.window_update(
            0, ROOM - frames.WINDOW
        )

    def hello(self) -> bytes:
        """What an end sends first."""
        if self.client:
            return frames.PREFACE + self.terms({frames.ENABLE_PUSH: 0})
        return self.terms({frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS})

    # --- sending

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.output.append(data)

    def take(self) -> bytes:
        """What is to be sent, where `write` only keeps it."""
        output = b"".join(self.output)
        self.output.clear()
        return output

    def enlist(self, stream: S) -> None:
        """Give a stream of ours its number; its headers are to follow at once."""
        self.highest = stream.id = self.next
        self.next += 2
        stream.window = self.peer_window
        self.streams[stream.id] = stream

    @property
    def paused(self) -> bool:
        """Whether the peer does not read as fast as we write."""
        return False

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
            now = self._now()
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

    def receive(self, data: bytes) -> None:
        """Read all frames that are whole."""
        if self._preface:
            size = len(self._preface)
            if data[:size] != self._preface[: len(data)]:
                self.foreign()
                return
            self._preface, data = self._preface[len(data) :], data[size:]
        try:
            self._cut_up(self._rest + data if self._rest else data)
        except Broken as error:
            self.failed(error.code, str(error))

    def _cut_up(self, data: bytes) -> None:
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
        if stream is None and self.client:
            # Headers or trailers of a call that is over, nobody knows which: they are read for the table alone.
            self.decoder.pairs(block)
            self.late(id)
            return
        try:
            fields = self.decoder.fields(block, self._expected(stream))
        except StreamBroken:
            if stream is None:
                self._opened(id, None, end)
            raise
        if stream is None:
            self._opened(id, fields, end)
        elif stream.ended:
            raise StreamBroken(Code.STREAM_CLOSED, "headers after the end of a stream")
        else:
            stream.ended = end
            stream.headers(fields, end)
            if self.client and fields.get(":status", "")[:1] != "1":
                stream.opened = True

    def _expected(self, stream: S | None) -> frozenset[str]:
        """The pseudo-headers that a block for this stream has to have."""
        if self.client:
            return TRAILERS if stream is not None and stream.opened else RESPONSE
        return TRAILERS if stream is not None else REQUEST

    def _opened(self, id: int, fields: dict[str, str] | None, end: bool) -> None:
        """Headers of a caller for a stream that is not open; None where they are malformed."""
        if id <= self.highest:
            if id not in self._cut:
                raise Broken(Code.PROTOCOL_ERROR, "a stream's number is lower than the last one's")
            # Trailers of a call that we have ended.
            return
        if not id & 1:
            raise Broken(Code.PROTOCOL_ERROR, "a caller's stream has an even number")
        self.highest = id
        if self.closed or self.leaving:
            # Sent before the caller heard that we leave; it will know that this call was not taken.
            self.note_cut(id)
            return
        self.last = id
        if fields is None:
            return
        stream = self.accept(id)
        if stream is None:
            self.spend(RESET_COST)
            self.note_cut(id)
            self.write(frames.reset(id, Code.REFUSED_STREAM))
            return
        self.streams[id] = stream
        stream.ended = end
        stream.begin(fields)

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
        # The last value of a key counts: a frame has room for thousands, and each could concern all streams.
        for key, value in dict(frames.read_settings(payload)).items():
            if key == frames.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
                self.limited()
            elif key == frames.INITIAL_WINDOW_SIZE and value != self.peer_window:
                self.spend(len(self.streams) // STREAMS_AT_COST)
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
