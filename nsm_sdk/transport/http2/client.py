# SPDX-License-Identifier: Apache-2.0
"""gRPC on a socket of our own, client side.

Does:  `ClientConnection` makes calls; `ClientStream`, one call, turns answers, resets and lost connections into
       messages and errors, and ends at the caller's deadline.
Place: below `carrier`, which connects.
State: the calls that are running, what has come for each, and those that wait for the peer to allow another.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from nsm_sdk.api import Method
from nsm_sdk.core import Call
from nsm_sdk.errors import ConnectionRetired, DeadlineExceeded, Exhausted, Internal, NotReached, Status, Unavailable
from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.frames import Broken, Code
from nsm_sdk.transport.http2.grpc_text import metadata_of, read_binary, read_message, timeout_text
from nsm_sdk.transport.http2.headers import Fixed, Pairs, size_of
from nsm_sdk.transport.http2.stream import Stream
from nsm_sdk.transport.http2.wire import Connections, WaitingStream, Wire
from nsm_sdk.transport.status import PUSHBACK_KEY, TRAIL_KEY, clean, decode

AGENT: Final = "nsm-sdk-python"
_HTTP: Final = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
_RESETS: Final = {
    Code.REFUSED_STREAM: Status.UNAVAILABLE,
    Code.CANCEL: Status.CANCELLED,
    Code.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    Code.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}


class ClientStream(WaitingStream):
    """One call."""

    __slots__ = (
        "_error",
        "_reader",
        "_timer",
        "answered",
        "call",
        "messages",
        "method",
        "over",
        "path",
        "taken",
        "url",
    )

    connection: ClientConnection

    def __init__(
        self, connection: ClientConnection, call: Call, method: Method[Any, Any] | None, path: str, url: str
    ) -> None:
        super().__init__(connection, 0)
        self.call = call
        self.method = method
        self.path = path
        self.url = url
        self.messages: deque[bytes] = deque()
        self.answered: dict[str, str] = {}
        """The headers of the answer."""
        self.taken = False
        """Whether somebody waits for it."""
        self.over = False
        """Whether nothing more will come."""
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._timer: Any = None
        if call.deadline < math.inf:
            self._timer = call.runtime.timers.at(call.deadline, self._late)

    async def next(self) -> bytes | None:
        """The next message; None at the end. Raises what the peer answered."""
        while not self.messages:
            if self.over:
                self._raise()
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self.messages.popleft()

    async def one(self) -> bytes:
        """The only message of an answer, when its trailers have come too."""
        while not self.over:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self._raise()
        return self.messages[0]

    def _raise(self) -> None:
        # Not kept here: an error that somebody keeps must not keep the call and its messages.
        error, self._error = self._error, None
        if error is not None:
            raise error

    def check(self, raw: bytes) -> None:
        """Raise for a message that is too large to be sent."""
        if len(raw) > self.connection.max_message:
            raise Exhausted(
                f"{self.url}: message larger than max ({len(raw)} vs. {self.connection.max_message})",
                hop=self._hop,
                hint="send less at once, or raise max_message",
            )

    def stop(self) -> None:
        """Nobody waits any more; a call that is not over is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.id in self.connection.streams:
            self.connection.write(frames.reset(self.id, Code.CANCEL))
            self.leave()

    def metadata(self) -> dict[str, str]:
        """What the peer sent beside its answer."""
        return metadata_of(self.answered)

    # --- what arrives

    def headers(self, fields: dict[str, str], end: bool) -> None:
        status = fields.get(":status", "")
        if not self.opened and not end:
            if status[:1] == "1":
                return
            self.opened = True
            self.answered = fields
            if status != "200" or not fields.get("content-type", "").startswith("application/grpc"):
                self._not_grpc(status)
            else:
                self._wake()
            return
        if not end:
            raise Broken(Code.PROTOCOL_ERROR, "headers in the middle of a stream")
        self._trailers(fields, status)

    def _trailers(self, fields: dict[str, str], http: str) -> None:
        text = fields.get("grpc-status")
        if text is None:
            if self.opened:
                self.fail(Internal(f"{self.url}: the answer ends without a status", hop=self._hop))
            else:
                self._not_grpc(http)
        elif text == "0":
            # Without a method it is a question for the health.
            streaming = self.method is not None and self.method.server_streaming
            if not streaming and len(self.messages) != 1:
                many = "more than one message" if self.messages else "no message"
                name = self.method.name if self.method is not None else "a health check"
                self.fail(Internal(f"{self.url} answered {name} with {many}", hop=self._hop))
            else:
                self._done()
        else:
            status = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else int(Status.UNKNOWN)
            text, trail = read_message(fields.get("grpc-message", "")), read_binary(fields.get(TRAIL_KEY, ""))
            if status == Status.DEADLINE_EXCEEDED and not trail and text == "Deadline Exceeded":
                # What gRPC itself says on the peer's behalf; our own clock was about to.
                self._late()
            else:
                self.fail(decode(status, text, trail, self.url, fields.get(PUSHBACK_KEY, "")))

    def message(self, raw: bytes) -> None:
        if not self.opened:
            raise Broken(Code.PROTOCOL_ERROR, "data before headers")
        self.messages.append(raw)
        self._wake()

    def finished(self) -> None:
        self.fail(Internal(f"{self.url}: the answer ends without a status", hop=self._hop))

    def refused(self, text: str, *, large: bool = False) -> None:
        if large:
            self.fail(Exhausted(f"{self.url}: {text}", hop=self._hop, hint="send less at once, or raise max_message"))
        else:
            self.fail(Internal(f"{self.url}: {text}", hop=self._hop))

    def compressed(self) -> None:
        encoding = self.answered.get("grpc-encoding", "")
        how = f" with {clean(encoding, 40)!r}" if encoding else ""
        self.fail(
            Internal(
                f"{self.url}: a message is compressed{how}, which was not agreed",
                hop=self._hop,
                hint="let the peer, or the proxy before it, answer without compression",
            )
        )

    def gone(self, text: str, code: int | None, *, handled: bool = True) -> None:
        if code == Code.CANCEL and self.call.runtime.clock.now() >= self.call.deadline:
            # The peer's clock has just overtaken our own timer.
            self._late()
            return
        connection = self.connection
        if connection.retired and handled and code in (None, Code.NO_ERROR, Code.CANCEL):
            self.fail(
                ConnectionRetired(
                    f"{self.url}: the peer ended the connection: {clean(text)}", hop=self._hop, hint="call again"
                )
            )
            return
        if code is not None:
            status = _RESETS.get(Code(code), Status.INTERNAL) if code in Code._value2member_map_ else Status.INTERNAL
            handled = code != Code.REFUSED_STREAM
        else:
            status = Status.UNAVAILABLE
        if not handled:
            self.fail(
                NotReached(f"{self.url}: the peer takes no more calls: {clean(text)}", hop=self._hop, hint="call again")
            )
        elif status is Status.UNAVAILABLE:
            self.fail(
                Unavailable(
                    f"{self.url}: the connection failed: {clean(text)}",
                    hop=self._hop,
                    hint="is the peer still running?",
                )
            )
        else:
            self.fail(decode(status, text, b"", self.url))

    @property
    def _hop(self) -> str:
        return self.call.runtime.name

    def _late(self) -> None:
        self._timer = None
        what = f" {self.method.name}" if self.method is not None else ""
        self.fail(
            DeadlineExceeded(
                f"{self.url} did not answer{what} in time", hop=self._hop, hint="the peer hangs, or needs more time"
            )
        )

    def _not_grpc(self, status: str) -> None:
        code = _HTTP.get(int(status) if status.isascii() and status.isdecimal() else 0, Status.UNKNOWN)
        self.fail(decode(code, f"the peer answered HTTP status {status[:20]}, not gRPC", b"", self.url))

    def fail(self, error: Exception) -> None:
        """The call is over, with this error; a peer that may still be at it is told."""
        if not self.over:
            self.over, self._error = True, error
            if self.id in self.connection.streams and not self.ended:
                self.connection.write(frames.reset(self.id, Code.CANCEL))
            self.leave()
            self._wake()

    def _done(self) -> None:
        self.over = True
        self.finish()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class ClientConnection(Wire["ClientStream"]):
    """Our side of a connection to a peer. `settled` is called once: the peer is there (""), or why it is not."""

    def __init__(
        self,
        authority: str,
        among: Connections[ClientConnection],
        *,
        max_message: int,
        ping_every: float,
        settled: Callable[[str], None],
    ) -> None:
        super().__init__(among, client=True, max_message=max_message, ping_every=ping_every)
        self.goodbye = ""
        """What the peer said when it announced the end of the connection."""
        self.retired = False
        """Whether it gave no error as its reason."""
        self._authority = authority
        self._settled: Callable[[str], None] | None = settled
        self._slots: deque[asyncio.Future[None]] = deque()

    @property
    def usable(self) -> bool:
        """Whether another call may be made."""
        return not self.leaving and self.next <= frames.LARGEST

    @property
    def watched(self) -> bool:
        return bool(self.streams)

    def introduced(self) -> None:
        self._settle("")

    def told_to_leave(self, last: int, code: int, text: str) -> None:
        self.goodbye, self.retired = text, code == Code.NO_ERROR
        for stream in list(self.streams.values()):
            if stream.id > last:
                stream.gone(text, None, handled=False)
        # Those who wait for a place go to another connection, however long the streams of this one last.
        self._let_in()
        self._leave_if_unused()

    def limited(self) -> None:
        # All look again, in their order.
        for _ in range(len(self._slots)):
            self._let_in()

    def broken(self, text: str) -> None:
        super().broken(f"{text}: {self.goodbye}" if self.goodbye else text)

    def ended(self) -> None:
        super().ended()
        self._settle("the peer does not speak HTTP/2, or closed the connection")
        self._let_in()

    def _settle(self, why: str) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(why)

    def give_up(self) -> None:
        """Nobody wants this connection, which may never have stood."""
        self._settled = None
        if not self.closed and self.connected:
            self.abort("nobody wants it")

    def drop(self) -> None:
        """No more calls; the connection ends with the last one."""
        self.leaving = True
        self._let_in()
        self._leave_if_unused()

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        if self._slots:
            self._let_in()
        if self.leaving:
            self._leave_if_unused()

    def _leave_if_unused(self) -> None:
        if not self.streams and not self.closed:
            self.close()

    def _let_in(self) -> None:
        while self._slots and (self.leaving or len(self.streams) < self.peer_streams):
            waiting = self._slots.popleft()
            if not waiting.done():
                waiting.set_result(None)
                if not self.leaving:
                    return

    async def slot(self) -> None:
        """Wait until the peer allows another call."""
        while not self.leaving and len(self.streams) >= self.peer_streams:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._slots.append(waiting)
            try:
                await waiting
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled():
                    self._let_in()
                raise

    def begin(self, stream: ClientStream, left: float, metadata: Pairs, raw: bytes | None, *, end: bool) -> None:
        """Send the headers of a call, and its first message if there is one. The connection must be `usable`."""
        if self.peer_headers < math.inf and size_of(metadata) > self.peer_headers:
            raise Exhausted(
                f"{stream.url}: metadata larger than max ({size_of(metadata)} vs. {self.peer_headers})",
                hop=stream.call.runtime.name,
                hint="send less beside the message",
            )
        if raw is not None:
            stream.check(raw)
        self.enlist(stream)
        varying = list(metadata)
        if left < math.inf:
            varying.append(("grpc-timeout", timeout_text(left)))
        with self.together:
            self.headers(stream.id, self._fixed(stream.path), varying)
            if raw is not None:
                stream.send(raw, end=end)

    def _fixed(self, path: str) -> Fixed:
        return (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", AGENT),
        )
