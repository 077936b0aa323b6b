# SPDX-License-Identifier: Apache-2.0
"""One stream of a connection: what callers and servers of a call share.

Does:  cuts what arrives into messages, within the window that it grants; sends messages and trailers within the window
       that the peer grants, in order, later if need be.
Place: beside `connection`, without a socket as that is; `client` and `server` say what a message, an end or a reset
       means.
State: both windows, the message that is arriving, what waits to be sent.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.frames import Broken, Code, StreamBroken
from nsm_sdk.transport.http2.headers import Fixed, Pairs

if TYPE_CHECKING:
    from nsm_sdk.transport.http2.connection import Connection


@dataclass(frozen=True, slots=True)
class Event:
    """What has arrived, where nothing acts on it in place: the name of the hook, its stream, and its arguments."""

    kind: str
    stream: int = 0
    what: Any = None


_PREFIX: Final = 5
"""Bytes before each message: whether it is compressed, and its length."""
ANSWER_GAIN: Final = 8
"""What an answered call gives back to the peer's budget."""
MESSAGE_GAIN: Final = 4
"""What a DATA frame of ours gives back: the peer may say for it that both its windows have grown, and ping to measure
the way, as gRPC's own libraries do."""
SMALL: Final = 256
"""Bytes of a DATA frame from which on it is worth its handling; smaller ones cost the peer a little of its budget."""


class Stream:
    """One call on a connection. It belongs to the connection from `open` until `leave`."""

    __slots__ = (
        "_after",
        "_allowed",
        "_expected",
        "_need",
        "_partial",
        "connection",
        "cut",
        "ended",
        "id",
        "opened",
        "pending",
        "sent",
        "unread",
        "window",
    )

    def __init__(self, connection: Connection[Any], id: int) -> None:
        self.connection = connection
        self.id = id
        self.window = connection.peer_window
        """Bytes that the peer allows us to send."""
        self.pending: deque[memoryview] = deque()
        """What waits for the peer's window."""
        self.cut = False
        """Whether the first of it is the rest of a message."""
        self.sent = False
        """Whether our side has ended."""
        self.ended = False
        """Whether the peer's side has ended."""
        self.opened = False
        """Whether the headers of the answer have come, or have been sent."""
        self.unread = 0
        """Bytes of whole messages that nobody has read, with their prefixes: empty ones are not for nothing."""
        self._after: tuple[Fixed, Pairs] | bool = False
        self._allowed = frames.WINDOW
        self._partial = bytearray()
        self._need = 0
        self._expected: int | None = None

    @property
    def belongs(self) -> bool:
        """Whether it has not left the connection; nothing may be sent after that."""
        return self.id in self.connection.streams

    @property
    def reset_cost(self) -> int:
        """What it costs the peer to reset it."""
        return 1

    # --- what arrives

    def _event(self, kind: str, what: Any) -> None:
        self.connection.events.append(Event(kind, self.id, what))

    def begin(self, fields: dict[str, str]) -> None:
        """The headers with which the peer has opened it."""
        self._event("begin", fields)

    def headers(self, fields: dict[str, str], end: bool) -> None:
        """Headers or trailers of the peer."""
        self._event("headers", (fields, end))

    def message(self, raw: bytes) -> None:
        """A whole message of the peer."""
        self._event("message", raw)

    def finished(self) -> None:
        """The peer's side has ended, after all its messages."""
        self._event("finished", None)

    def refused(self, text: str, *, large: bool = False) -> None:
        """The peer sent what cannot be taken; a message that is `large`, or one that is none."""
        self._event("refused", (text, large))

    def compressed(self) -> None:
        """The peer sent a compressed message, which was not agreed."""
        self._event("compressed", None)

    def gone(self, text: str, code: int | None, *, handled: bool = True) -> None:
        """The stream is over: reset by the peer with `code`, or with its connection. `handled`: perhaps the peer has
        handled it."""
        self._event("gone", (text, code, handled))

    def data(self, payload: bytes, flags: int) -> None:
        """A DATA frame."""
        if self.ended:
            raise StreamBroken(Code.STREAM_CLOSED, "data after the end of a stream")
        self._allowed -= len(payload)
        if self._allowed < 0:
            raise Broken(Code.FLOW_CONTROL_ERROR, "more data than the window of a stream allows")
        if flags & frames.PADDED:
            payload = frames.bare(payload, frames.PADDED)
        if len(payload) < SMALL and not flags & frames.END_STREAM:
            self.connection.spend(1)
        if self._expected is not None:
            self._expected -= len(payload)
            if self._expected < 0 or (flags & frames.END_STREAM and self._expected):
                raise StreamBroken(Code.PROTOCOL_ERROR, "the length is not what content-length says")
        if payload and not self.cut_up(payload):
            return
        if flags & frames.END_STREAM:
            self.ended = True
            if self._partial:
                self.refused("the last message is cut short")
            else:
                self.finished()
        elif self._allowed < frames.WINDOW // 2 or self._need > self._allowed:
            self.grant()

    def expect(self, length: str) -> None:
        """The headers say how many bytes will come."""
        self._expected = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else -1
        if self._expected < 0 or (self.ended and self._expected):
            raise StreamBroken(Code.PROTOCOL_ERROR, "the length is not what content-length says")

    def read(self, size: int) -> None:
        """Somebody has read a message of `size` bytes."""
        self.unread -= size + _PREFIX
        if not self.ended:
            self.grant()

    def grant(self) -> None:
        """Allow the peer to send on: while nobody reads, a window full and one message at most."""
        wanted = frames.WINDOW - self.unread
        if self.unread < frames.WINDOW:
            wanted = max(wanted, self._need, _PREFIX)
        more = wanted - self._allowed
        if more > 0 and (more >= frames.WINDOW // 2 or self._allowed < max(self._need, _PREFIX)):
            self._allowed += more
            self.connection.write(frames.window_update(self.id, more))

    def cut_up(self, payload: bytes) -> bool:
        """Deliver the messages that are whole; False where the stream has been refused."""
        partial = self._partial
        if not partial and len(payload) >= _PREFIX and int.from_bytes(payload[1:5]) == len(payload) - _PREFIX:
            return self._deliver(payload[0], payload[_PREFIX:])
        partial += payload
        self.connection.assembling += len(payload)
        self._need = 0
        while len(partial) >= _PREFIX:
            size = int.from_bytes(partial[1:5])
            if size > self.connection.max_message:
                return self._refuse(f"message larger than max ({size} vs. {self.connection.max_message})", large=True)
            if len(partial) < _PREFIX + size:
                self._need = _PREFIX + size - len(partial)
                break
            raw, compressed = bytes(partial[_PREFIX : _PREFIX + size]), partial[0]
            del partial[: _PREFIX + size]
            self.connection.assembling -= _PREFIX + size
            if not self._deliver(compressed, raw):
                return False
        return True

    def _deliver(self, compressed: int, raw: bytes) -> bool:
        if compressed:
            self.compressed()
            return False
        if len(raw) > self.connection.max_message:
            return self._refuse(f"message larger than max ({len(raw)} vs. {self.connection.max_message})", large=True)
        self.unread += len(raw) + _PREFIX
        self.connection.earn(1)
        self.message(raw)
        # The handler may have ended the stream.
        return self.id in self.connection.streams

    def _refuse(self, text: str, *, large: bool = False) -> bool:
        self.refused(text, large=large)
        return False

    # --- what is sent

    def send(self, raw: bytes, *, end: bool = False) -> None:
        """Send a message; where the peer does not allow it yet, it waits (see `room`)."""
        connection, size = self.connection, len(raw) + _PREFIX
        if not self.pending and size <= self.window and size <= connection.window and size <= connection.peer_frame:
            self.window -= size
            connection.window -= size
            self.sent = end
            connection.earn(MESSAGE_GAIN)
            head = frames.HEAD.pack(size >> 8, size & 0xFF, frames.DATA, end, self.id)
            connection.write(b"".join((head, b"\0", (size - _PREFIX).to_bytes(4), raw)))
            return
        self.pending.append(memoryview(b"\0" + len(raw).to_bytes(4) + raw))
        if end:
            self._after = True
        connection.blocked[self] = None
        connection.pump()

    def respond(self, raw: bytes) -> None:
        """Send the whole body of an answer that is no gRPC, and end our side."""
        self.pending.append(memoryview(raw))
        self._after = True
        self.connection.blocked[self] = None
        self.connection.pump()

    def end(self) -> None:
        """End our side without trailers, as callers do."""
        if self.pending:
            self._after = True
        else:
            self.sent = True
            self.connection.write(frames.frame(frames.DATA, frames.END_STREAM, self.id))

    def trailers(self, fixed: Fixed, varying: Pairs = ()) -> None:
        """End our side with trailers, as servers do."""
        if self.pending:
            self._after = (fixed, varying)
        else:
            self.sent = True
            self.connection.earn(ANSWER_GAIN)
            self.connection.headers(self.id, fixed, varying, end=True)
            self.finish()

    def pump(self, limit: int) -> int:
        """Send what the windows allow of what waits, at most `limit` bytes; answers how many."""
        total = 0
        while (
            self.pending
            and (size := min(len(self.pending[0]), self.window, limit - total, self.connection.peer_frame)) > 0
        ):
            chunk = self.pending[0]
            if size == len(chunk):
                self.pending.popleft()
                self.cut = False
            else:
                self.pending[0] = chunk[size:]
                self.cut = True
            self.window -= size
            total += size
            # A peer that allows a byte at a time makes work.
            self.connection.earn(MESSAGE_GAIN if size >= SMALL else 2)
            last = not self.pending and self._after is True
            self.connection.write(frames.frame(frames.DATA, last, self.id, bytes(chunk[:size])))
            self.sent = last
        if not self.pending:
            if not isinstance(self._after, bool):
                fixed, varying = self._after
                self.trailers(fixed, varying)
            self.wake()
        return total

    def wake(self) -> None:
        """There may be room for more; see `pending`."""

    def finish(self) -> None:
        """Both sides have said what they had to say."""
        if self.id in self.connection.streams:
            if not (self.sent and self.ended):
                self.connection.write(frames.reset(self.id, Code.NO_ERROR if self.sent else Code.CANCEL))
            self.leave()

    def leave(self) -> None:
        """Leave the connection; what still arrives for this stream is dropped."""
        if not self.ended:
            self.connection.note_cut(self.id)
        self.connection.forget(self)
        self.connection.assembling -= len(self._partial)
        self._partial = bytearray()
        self.pending.clear()
        self.wake()
