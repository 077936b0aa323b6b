# SPDX-License-Identifier: Apache-2.0
"""gRPC on a socket of our own, server side.

Does:  answers the methods of a `Served`, and the health service. `ServerStream`, one call, is a task of the role from
       the moment its message has come; a caller that resets it, or goes away, cancels the task.
Place: one `ServerConnection` for each socket that a listener has accepted.
State: the calls that are running, what has come for each, who watches the health.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any, Final, TypeAlias, cast

import anyio

from nsm_sdk.api import Message
from nsm_sdk.core import Call, Peer, Runtime, Served
from nsm_sdk.errors import (
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    Internal,
    InvalidRequest,
    NotFound,
    NsmError,
    Unavailable,
    Unimplemented,
)
from nsm_sdk.transport import health
from nsm_sdk.transport.health import CHECK, WATCH
from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.connection import RESET_COST
from nsm_sdk.transport.http2.frames import Broken, Code
from nsm_sdk.transport.http2.grpc_text import binary_text, message_text, metadata_of, read_timeout
from nsm_sdk.transport.http2.headers import ANSWER, GOOD, Fixed
from nsm_sdk.transport.http2.stream import Stream
from nsm_sdk.transport.http2.wire import Connections, WaitingStream, Wire
from nsm_sdk.transport.metadata import checked
from nsm_sdk.transport.offers import Offer, Received, asked
from nsm_sdk.transport.settings import MAX_METADATA, MAX_STREAMS
from nsm_sdk.transport.status import PUSHBACK_KEY, TRAIL_KEY, encode

Tell: TypeAlias = Callable[[bytes], None]

PING_EVERY: Final = 300.0
"""Seconds of silence after which a caller is pinged."""
ROUND: Final = 0.25
"""Seconds that a caller gets to confirm that it makes no more calls."""
LINGER: Final = 0.1
"""Seconds that a caller gets to hang up after its last answer."""
GOODBYE: Final = "the hop stops"
"""The reason in a GOAWAY."""
_FAREWELL: Final = b"farewell"
_NOT_GRPC: Final = ((":status", "415"), ("content-type", "text/plain; charset=utf-8"))
_PLAIN: Final = (*ANSWER, ("grpc-accept-encoding", "identity"))


class Health:
    """Health of one listener."""

    def __init__(self, services: Iterable[str], runtime: Runtime) -> None:
        self._services = {"", *services}
        self._runtime = runtime
        self._serving = True
        self._watching: dict[Tell, str] = {}
        runtime.at_drain(self.stop)

    def check(self, raw: bytes) -> bytes:
        """Answer a Check; NotFound for a service that nobody offers here."""
        service = health.asked_service(raw)
        if service not in self._services:
            raise NotFound(
                f"unknown service {service[:200]!r}", hop=self._runtime.name, hint="ask for '' or for an NSM service"
            )
        return self._answer(service)

    def watch(self, raw: bytes, tell: Tell) -> None:
        """Tell now and at each change, until `unwatch`."""
        service = health.asked_service(raw)
        self._watching[tell] = service
        tell(self._answer(service))

    def unwatch(self, tell: Tell) -> None:
        """Tell no more."""
        self._watching.pop(tell, None)

    def stop(self) -> None:
        """Not ready any more."""
        if self._serving:
            self._serving = False
            for tell, service in list(self._watching.items()):
                if service in self._services:
                    tell(self._answer(service))

    def _answer(self, service: str) -> bytes:
        serving = health.SERVING if self._serving else health.NOT_SERVING
        return health.answer(serving if service in self._services else health.SERVICE_UNKNOWN)


class ServerStream(WaitingStream):
    """One call of a caller."""

    __slots__ = (
        "_deadline",
        "_encoding",
        "_foreign",
        "_incoming",
        "_messages",
        "_metadata",
        "_offer",
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
        self._scope: anyio.CancelScope | None = None
        self._reader: asyncio.Future[None] | None = None
        self._watching = False
        self._encoding = ""
        self._foreign = False
        self._incoming = False

    @property
    def reset_cost(self) -> int:
        # A call that is taken back before it is answered has cost much and given nothing.
        return 1 if self.opened else RESET_COST

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
        if not self.opened:
            self.opened = True
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
        """The hop stops: what is no task of the role, and has no answer yet that is on its way, ends here."""
        if self._scope is None and self._after is False:
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
        self.trailers(() if self.opened else headers, varying)

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
            self.trailers(GOOD)

    async def _stream(self, deadline: float) -> None:
        call = self._call(deadline)
        async with aclosing(self._produce(call)) as items:
            async for item in items:
                # It may have ended in the same moment, before this task could be cancelled.
                if self.belongs:
                    raw = item.SerializeToString()
                    with self.conn.together:
                        self._open(call)
                        self._say(raw)
                    # Waits while the caller does not read, so that nothing piles up here.
                    await self.room()
                if not self.belongs:
                    raise Cancelled("the caller went away")
        if self.belongs:
            with self.conn.together:
                self._open(call)
                self.trailers(GOOD)

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
        if not self.opened:
            varying: Any = ()
            if call.answer:
                try:
                    varying = checked(call.answer)
                except NsmError as error:
                    raise Internal(error.message, hop=call.runtime.name, hint=error.hint) from error
            self.opened = True
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
        self.trailers(GOOD)

    def _tell(self, raw: bytes) -> None:
        if not self.opened:
            self.opened = True
            self.connection.headers(self.id, ANSWER)
        self.send(raw)


class ServerConnection(Wire["ServerStream"]):
    """One caller's connection."""

    def __init__(
        self,
        served: Served,
        found: dict[str, Offer],
        health: Health,
        among: Connections[ServerConnection],
        max_message: int,
    ) -> None:
        super().__init__(among, client=False, max_message=max_message, ping_every=PING_EVERY)
        self.served = served
        self.offers = found
        self.health = health
        self.peer = Peer()
        self.running = 0
        """Calls whose tasks have not ended; a stream that was reset may still have one."""
        self.starting: list[ServerStream] = []
        """Calls whose message has come with the bytes that are being read."""
        self.incoming = 0
        """Calls whose message has not come yet."""
        self._farewell: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self.peer = _peer(cast(asyncio.Transport, transport))
        super().connection_made(transport)

    def introduced(self) -> None:
        """Nothing waits for it."""

    def foreign(self) -> None:
        self.abort("the peer does not speak HTTP/2")

    def accept(self, id: int) -> ServerStream | None:
        return None if max(self.running, len(self.streams)) >= MAX_STREAMS else ServerStream(self, id)

    def data_received(self, data: bytes) -> None:
        """Read all that has come, then run the calls among it that have not been taken back."""
        super().data_received(data)
        if self.starting:
            starting, self.starting = self.starting, []
            with self.together:
                for stream in starting:
                    stream.start()

    def ended(self) -> None:
        if self._farewell is not None:
            self._farewell.cancel()
        super().ended()

    @property
    def settled(self) -> bool:
        """Whether no more calls will come, and those that were taken have begun."""
        return self.closed or (self.leaving and not self.incoming)

    def announce(self) -> None:
        """Ask the caller for no more calls; those that are on their way are still taken (see `leave`)."""
        if not self.leaving and self._farewell is None:
            self._farewell = self._loop.call_later(ROUND, self.leave)
            # The answer to the ping comes after all that was sent before the caller heard.
            goodbye = frames.goaway(frames.LARGEST, Code.NO_ERROR, GOODBYE)
            self.write(goodbye + frames.frame(frames.PING, 0, 0, _FAREWELL))

    def pinged_back(self, payload: bytes) -> None:
        if payload == _FAREWELL:
            self.leave()

    def leave(self) -> None:
        """Take no more calls; those that run go on."""
        if not self.leaving:
            self.leaving = True
            if self._farewell is not None:
                self._farewell.cancel()
            self.dismissed = True
            self.write(frames.goaway(self.last, Code.NO_ERROR, GOODBYE))
            self._end_if_unused()
            self.among.changed()

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        self._end_if_unused()

    def cut(self) -> None:
        """End the streams that no task of the role ends."""
        for stream in list(self.streams.values()):
            stream.cut_off()

    def _end_if_unused(self) -> None:
        if self.leaving and not self.streams and not self.closed:
            # The caller hangs up when it has read its last answer. If we did, with something of its still unread, the
            # kernel would take the answer back.
            self._farewell = self._loop.call_later(LINGER, self.close)


def _peer(transport: asyncio.Transport) -> Peer:
    """The caller's address as a URL; callers over Unix sockets have none of their own."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return Peer(address=f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    return Peer(address="unix://")
