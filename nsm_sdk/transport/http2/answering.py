# SPDX-License-Identifier: Apache-2.0
"""One call of a caller.

Does:  reads its headers, runs the method as a task of the role when its message has come, and answers; a caller that
       resets it, or goes away, cancels the task.
Place: a stream of a `ServerConnection`.
State: what has come, what has been answered, the scope of the task.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import anyio

from nsm_sdk.api import Message
from nsm_sdk.core import Call
from nsm_sdk.errors import (
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    Internal,
    InvalidRequest,
    NsmError,
    Unavailable,
    Unimplemented,
)
from nsm_sdk.transport.health import CHECK, WATCH
from nsm_sdk.transport.http2.connection import RESET_COST
from nsm_sdk.transport.http2.frames import Broken, Code
from nsm_sdk.transport.http2.headers import ANSWER, Fixed, binary_text, message_text, metadata_of, read_timeout
from nsm_sdk.transport.http2.stream import Stream
from nsm_sdk.transport.metadata import checked
from nsm_sdk.transport.offers import Offer, Received, asked
from nsm_sdk.transport.settings import MAX_METADATA
from nsm_sdk.transport.status import PUSHBACK_KEY, TRAIL_KEY, encode

if TYPE_CHECKING:
    from nsm_sdk.transport.http2.server import ServerConnection


_NOT_GRPC: Final = ((":status", "415"), ("content-type", "text/plain; charset=utf-8"))
_PLAIN: Final = (*ANSWER, ("grpc-accept-encoding", "identity"))
_OK: Final = (("grpc-status", "0"),)


class ServerStream(Stream):
    """One call of a caller."""

    __slots__ = (
        "_deadline",
        "_encoding",
        "_foreign",
        "_incoming",
        "_messages",
        "_metadata",
        "_offer",
        "_opened",
        "_path",
        "_reader",
        "_scope",
        "_watching",
        "conn",
    )

    def __init__(self, conn: ServerConnection, id: int) -> None:
        super().__init__(conn, id)
        self.conn = conn
        self._deadline = math.inf
        self._metadata: dict[str, str] = {}
        self._offer: Offer | None = None
        self._path = ""
        self._messages: deque[bytes] = deque()
        self._opened = False
        self._scope: anyio.CancelScope | None = None
        self._reader: asyncio.Future[None] | None = None
        self._watching = False
        self._encoding = ""
        self._foreign = False
        self._incoming = False

    @property
    def reset_cost(self) -> int:
        # A call that is taken back before it is answered has cost much and given nothing.
        return 1 if self._opened else RESET_COST

    # --- what arrives

    def begin(self, fields: dict[str, str]) -> None:
        """The call's headers."""
        path = self._path = fields.get(":path", "")
        if (length := fields.get("content-length")) is not None:
            self.expect(length)
        if fields.get(":method") != "POST" or not fields.get("content-type", "").startswith("application/grpc"):
            self._foreign = True
            if self.ended:
                self._not_grpc()
            return
        if (size := self.connection.decoder.size) > MAX_METADATA:
            self.refuse(Exhausted(f"metadata larger than max ({size} vs. {MAX_METADATA})"))
            return
        if (text := fields.get("grpc-timeout")) is not None:
            seconds = read_timeout(text)
            if seconds is None:
                self.refuse(InvalidRequest("malformed grpc-timeout", element="transport"))
                return
            self._deadline = asyncio.get_running_loop().time() + seconds
        self._encoding = fields.get("grpc-encoding", "")
        self._metadata = metadata_of(fields)
        self._offer = self.conn.offers.get(path)
        if self._offer is None and path not in (CHECK, WATCH):
            service, _, name = path.removeprefix("/").rpartition("/")
            known = any(offered.startswith(f"/{service}/") for offered in self.conn.offers)
            what = (
                f"unknown method {name[:200]} for service {service[:200]}"
                if known
                else f"unknown service {service[:200]}"
            )
            hop = self.conn.served.runtime.name
            self.refuse(Unimplemented(what, hop=hop, hint=f"{hop} does not offer it: check the address"))
            return
        if self._offer is not None and self._offer.exchange is not None:
            self._launch()
            return
        if self._offer is not None:
            self._incoming = True
            self.conn.incoming += 1
        if self.ended:
            self.finished()

    def cut_up(self, payload: bytes) -> bool:
        if self._foreign:
            self._not_grpc()
            return self.id in self.conn.streams
        return super().cut_up(payload)

    def pump(self, limit: int) -> int:
        total = super().pump(limit)
        if self.sent:
            self.finish()
        return total

    def _not_grpc(self) -> None:
        if not self._opened:
            self._opened = True
            with self.conn.together:
                self.connection.headers(self.id, _NOT_GRPC)
                self.respond(b"This is a gRPC server: it takes POST with content-type application/grpc.\n")

    def headers(self, fields: dict[str, str], end: bool) -> None:
        if not end:
            raise Broken(Code.PROTOCOL_ERROR, "headers in the middle of a stream")
        self.finished()

    def message(self, raw: bytes) -> None:
        self._messages.append(raw)
        if self._offer is not None and self._offer.exchange is not None:
            self._wake_reader()
        elif len(self._messages) > 1:
            self.refuse(InvalidRequest("more messages than the method takes", element="transport"))

    def finished(self) -> None:
        if self._foreign:
            self._not_grpc()
        elif self._offer is not None and self._offer.exchange is not None:
            self._wake_reader()
        elif not self._messages:
            self.refuse(InvalidRequest("fewer messages than the method takes", element="transport"))
        elif self._offer is not None:
            # With all that has come: a call that is taken back at once costs next to nothing then.
            self.conn.starting.append(self)
        else:
            self._health(self._messages.popleft())

    def start(self) -> None:
        """Run the method, unless the call is over already."""
        if self.id in self.conn.streams:
            self._launch()

    def refused(self, text: str, *, large: bool = False) -> None:
        if large:
            self.refuse(Exhausted(text, element="transport", hint="send less at once"))
        else:
            self.refuse(Unimplemented(text, element="transport"))

    def compressed(self) -> None:
        encoding = f" with {self._encoding[:40]!r}" if self._encoding else ""
        self.refuse(
            Unimplemented(
                f"a message is compressed{encoding}, which is not understood here",
                element="transport",
                hint="send messages without compression",
            ),
            _PLAIN,
        )

    def gone(self, text: str, code: int | None, *, handled: bool = True) -> None:
        self.ended = self.sent = True
        self.leave()
        if self._scope is not None:
            self._scope.cancel()

    def leave(self) -> None:
        super().leave()
        self._arrived()
        if self._watching:
            self._watching = False
            self.conn.health.unwatch(self._tell)
        self._wake_reader()

    # --- what is answered

    def cut_off(self) -> None:
        """The hop stops: what is no task of the role ends here."""
        if self._scope is None:
            what = self._offer.method.name if self._offer is not None else "health"
            hop = self.conn.served.runtime.name
            self.refuse(Unavailable(f"{what}: shutting down", hop=hop, hint="call again when the hop is back"))

    def refuse(self, error: NsmError, headers: Fixed = ANSWER) -> None:
        """End the call with an error; `headers` go before it where none have gone yet."""
        if self.id not in self.conn.streams:
            return
        if self._scope is not None:
            self._scope.cancel()
        failure = encode(error, self.conn.served.runtime.name)
        varying = [("grpc-status", str(int(failure.status))), ("grpc-message", message_text(failure.text))]
        varying.append((TRAIL_KEY, binary_text(failure.trail)))
        if failure.pushback:
            varying.append((PUSHBACK_KEY, failure.pushback))
        # What was written for a caller that does not read is not worth more than its error; but what it has in part, it
        # gets whole, because an error in the middle of a message is none.
        while len(self.pending) > self.cut:
            self.pending.pop()
        self.trailers(() if self._opened else headers, varying)

    def _arrived(self) -> None:
        if self._incoming:
            self._incoming = False
            self.conn.incoming -= 1
            self.conn.among.changed()

    def _launch(self) -> None:
        runtime, offer = self.conn.served.runtime, self._offer
        assert offer is not None
        left = self._deadline - asyncio.get_running_loop().time()
        if left <= 0:
            self.refuse(DeadlineExceeded(f"{offer.method.name}: the caller's time ran out", hint="allow more time"))
            return
        unary = offer.unary is not None
        try:
            result, scope = runtime.launch(
                self._unary if unary else self._stream, left, offer.method.name, stream=not unary
            )
        except NsmError as error:
            self.refuse(error)
            return
        self._scope = scope
        self.conn.running += 1
        self._arrived()
        result.add_done_callback(self._done)

    def _done(self, result: asyncio.Future[None]) -> None:
        self.conn.running -= 1
        self._scope = None
        error = result.exception()
        if error is not None:
            self.refuse(error if isinstance(error, NsmError) else Internal(str(error)))

    def _call(self, deadline: float) -> Call:
        return Call(self.conn.served.runtime, peer=self.conn.peer, metadata=self._metadata, deadline=deadline)

    async def _unary(self, deadline: float) -> None:
        offer, raw = self._offer, self._messages.popleft()
        assert offer is not None
        assert offer.unary is not None
        call = self._call(deadline)
        call.size = len(raw)
        reply = (await offer.unary(call, asked(offer.method, raw))).SerializeToString()
        if self.id not in self.conn.streams:
            return
        with self.conn.together:
            self._open(call)
            self._say(reply)
            self.trailers(_OK)

    async def _stream(self, deadline: float) -> None:
        call = self._call(deadline)
        async with aclosing(self._produce(call)) as items:
            async for item in items:
                raw = item.SerializeToString()
                with self.conn.together:
                    self._open(call)
                    self._say(raw)
                # Waits while the caller does not read, so that nothing piles up here.
                await self.room()
                if self.id not in self.conn.streams:
                    raise Cancelled("the caller went away")
        if self.id in self.conn.streams:
            with self.conn.together:
                self._open(call)
                self.trailers(_OK)

    def _produce(self, call: Call) -> AsyncGenerator[Message, None]:
        offer = self._offer
        assert offer is not None
        if offer.exchange is not None:
            return offer.exchange(call, Received(offer.method, self))
        assert offer.stream is not None
        raw = self._messages.popleft()
        call.size = len(raw)
        return offer.stream(call, asked(offer.method, raw))

    def __aiter__(self) -> ServerStream:
        return self

    async def __anext__(self) -> bytes:
        """The next message of the caller."""
        while not self._messages:
            if self.ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        raw = self._messages.popleft()
        self.read(len(raw))
        return raw

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _open(self, call: Call) -> None:
        """Response headers, once."""
        if not self._opened:
            varying: Any = ()
            if call.answer:
                try:
                    varying = checked(call.answer)
                except NsmError as error:
                    raise Internal(error.message, hop=call.runtime.name, hint=error.hint) from error
            self._opened = True
            self.connection.headers(self.id, ANSWER, varying)

    def _say(self, raw: bytes) -> None:
        if len(raw) > self.connection.max_message:
            raise Exhausted(
                f"message larger than max ({len(raw)} vs. {self.connection.max_message})",
                element="transport",
                hint="answer less at once",
            )
        self.send(raw)

    def _health(self, raw: bytes) -> None:
        health = self.conn.health
        try:
            if self._path == WATCH:
                self._watching = True
                health.watch(raw, self._tell)
                return
            reply = health.check(raw)
        except NsmError as error:
            self.refuse(error)
            return
        self._tell(reply)
        self.trailers(_OK)

    def _tell(self, raw: bytes) -> None:
        if not self._opened:
            self._opened = True
            self.connection.headers(self.id, ANSWER)
        self.send(raw)
