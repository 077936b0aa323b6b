# SPDX-License-Identifier: Apache-2.0
"""Calls to one peer over sockets of our own.

Does:  `Connector` connects when the first call comes, and again after the connection was lost; a call waits for a peer
       that is not there at most `dial_timeout`, then fails with `NotReached`. `SocketCarrier` makes messages of
       answers and the other way round; a call to a peer that is there fails as soon as its connection does.
Place: behind `Dialer`.
State: the connection, who waits for it, how many calls are running.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from typing import Any

import anyio

from nsm_sdk.api import Message, Method, Target
from nsm_sdk.core import Call
from nsm_sdk.errors import DeadlineExceeded, NotReached
from nsm_sdk.transport import health
from nsm_sdk.transport.http2.client import ClientConnection, ClientStream
from nsm_sdk.transport.http2.wire import Connections
from nsm_sdk.transport.metadata import TokenSource, outgoing
from nsm_sdk.transport.offers import answered
from nsm_sdk.transport.settings import BACKOFF, ChannelSettings

ATTEMPT = 1.0
"""Seconds that one attempt gets at least."""


class Connector:
    """Keeps at most one connection, and at most one attempt."""

    def __init__(self, target: Target, settings: ChannelSettings, among: Connections[ClientConnection]) -> None:
        self.connection: ClientConnection | None = None
        """The last one; it may have closed."""
        self._former: list[ClientConnection] = []
        """Those that take no more calls, while calls are running on them."""
        self._target = target
        self._settings = settings
        self._among = among
        self._waiting: dict[asyncio.Future[bool], bool] = {}
        """Whether each of those who wait for an attempt waits for more of them."""
        self._dialing: anyio.CancelScope | None = None
        self._why = ""

    async def connected(self, call: Call) -> ClientConnection:
        """A connection whose peer has introduced itself. Raises NotReached: nothing was sent to anybody."""
        waits = min(self._settings.dial_timeout, call.remaining() * 0.8)
        with anyio.move_on_after(waits):
            ended = False
            while True:
                if self.connection is not None and self.connection.usable:
                    return self.connection
                # The tasks of a role that has come to its end are cancelled at once: one try, for one that others make.
                if ended or (not await self._attempted(call) and not call.patient):
                    break
                ended = call.runtime.ending
        why = f"; {self._why}" if self._why else ""
        raise NotReached(
            f"{self._target.url}: nobody answers",
            hop=call.runtime.name,
            hint=f"is the peer running, and is this its address? (waited {waits:.3g} s{why})",
        )

    def close(self) -> None:
        """Break the connection and any attempt."""
        self._retire()
        self._stop_dialing()
        former, self._former = self._former, []
        for connection in former:
            if not connection.closed:
                connection.close()

    def drop(self) -> None:
        """Let the connection go when its last call has ended."""
        if self.connection is not None:
            self.connection.drop()
        self._retire()

    def _retire(self) -> None:
        connection, self.connection = self.connection, None
        self._former = [one for one in (*self._former, connection) if one is not None and not one.closed]

    async def _attempted(self, call: Call) -> bool:
        """Wait for the end of an attempt: whether there is a connection, or a need to look again."""
        mine: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[mine] = call.patient
        try:
            if self._dialing is None:
                # In the role that needs it first; when that one ends, whoever still waits dials anew.
                self._dialing = call.runtime.spawn(self._dial, f"dial {self._target.url}")
            return await mine
        finally:
            del self._waiting[mine]
            if not self._waiting:
                # A peer that is not there is not to be called for ever.
                self._stop_dialing()

    def _stop_dialing(self) -> None:
        dialing, self._dialing = self._dialing, None
        if dialing is not None:
            dialing.cancel()

    async def _dial(self) -> None:
        mine = self._dialing
        try:
            while not await self._attempt():
                self._tell(False, patient=False)
                await anyio.sleep(BACKOFF)
        finally:
            if self._dialing is mine:
                self._dialing = None
                self._tell(True, patient=True)

    def _tell(self, found: bool, *, patient: bool) -> None:
        """Tell those who wait; the patient ones only if `patient`."""
        for waiting, more in self._waiting.items():
            if not waiting.done() and (patient or not more):
                waiting.set_result(found)

    async def _attempt(self) -> bool:
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[str] = loop.create_future()
        made: list[ClientConnection] = []

        def settle(why: str) -> None:
            if not settled.done():
                settled.set_result(why)

        def factory() -> ClientConnection:
            target, settings = self._target, self._settings
            connection = ClientConnection(
                target.address if target.host else f"localhost:{target.port}" if target.port else "localhost",
                self._among,
                max_message=settings.max_message,
                ping_every=settings.ping_every,
                settled=settle,
            )
            made.append(connection)
            return connection

        self._why = "nothing came back"
        try:
            with anyio.move_on_after(max(self._settings.dial_timeout, ATTEMPT)):
                try:
                    await self._open(factory)
                    self._why = await settled
                except OSError as error:
                    self._why = error.strerror or str(error)
            if not self._why and made[0].usable:
                self._retire()
                self.connection = made.pop()
            elif not self._why:
                self._why = made[0].goodbye
        finally:
            for connection in made:
                connection.give_up()
        return not made and not self._why

    async def _open(self, factory: Callable[[], ClientConnection]) -> None:
        loop = asyncio.get_running_loop()
        target = self._target
        if target.network == "tcp":
            # A host that is left out is this machine.
            await loop.create_connection(factory, target.host or "localhost", target.port)
        else:
            path = f"\0{target.address[1:]}" if target.address.startswith("@") else target.address
            await loop.create_unix_connection(factory, path)


class SocketCarrier:
    """Calls to one peer over one connection."""

    def __init__(
        self,
        target: Target,
        tokens: TokenSource | None,
        settings: ChannelSettings,
        among: Connections[ClientConnection],
    ) -> None:
        self.url = target.url
        self.active = 0
        """Calls that are running."""
        self._tokens = tokens
        self._connector = Connector(target, settings, among)

    async def unary(self, method: Method[Any, Any], call: Call, request: Message) -> Any:
        sent = request.SerializeToString()
        stream = await self._begin(method, method.path, call, sent)
        try:
            raw = await stream.one()
        except NotReached:
            # The peer has just left, or taken too much: it has not looked at the call.
            self._end(stream)
            stream = await self._begin(method, method.path, call, sent)
            raw = await stream.one()
        finally:
            self._end(stream)
        # Beside status and type, which every answer has.
        if len(stream.answered) > 2:
            call.answered = stream.metadata()
        return answered(method, raw, self.url)

    async def stream(self, method: Method[Any, Any], call: Call, request: Message) -> AsyncGenerator[Any, None]:
        sent = request.SerializeToString()
        for again in (False, True):
            stream = await self._begin(method, method.path, call, sent)
            try:
                async with aclosing(self._read(stream, method)) as responses:
                    async for item in responses:
                        yield item
                return
            except NotReached:
                if again or stream.opened:
                    raise

    async def exchange(
        self, method: Method[Any, Any], call: Call, requests: AsyncIterable[Any]
    ) -> AsyncGenerator[Any, None]:
        stream = await self._begin(method, method.path, call, None)
        broken: list[Exception] = []

        async def send() -> None:
            try:
                async for request in requests:
                    if not stream.belongs:
                        # Cancelled in the same moment. The peer takes what comes after it for a breach.
                        return
                    raw = request.SerializeToString()
                    stream.check(raw)
                    stream.send(raw)
                    await stream.room()
                    if stream.over:
                        # The reading side learns why the call is over.
                        return
                if stream.belongs:
                    stream.end()
            except Exception as error:
                broken.append(error)
                stream.fail(error)
            finally:
                if (close := getattr(requests, "aclose", None)) is not None:
                    await close()

        sending = call.runtime.spawn(send, f"send {method.name}")
        try:
            async with aclosing(self._read(stream, method)) as responses:
                async for item in responses:
                    yield item
        finally:
            sending.cancel()

    async def healthy(self, call: Call, service: str) -> bool:
        """Ask the peer's health service; a service it does not know is `NotFound`."""
        stream = await self._begin(None, health.CHECK, call, health.question(service))
        try:
            return health.is_serving(await stream.one(), self.url)
        finally:
            self._end(stream)

    async def close(self) -> None:
        """Break what is running and let the connection go; the next call opens a new one."""
        self._connector.close()

    def drop(self) -> None:
        """Let an unused connection go without waiting."""
        self._connector.drop()

    async def _read(self, stream: ClientStream, method: Method[Any, Any]) -> AsyncGenerator[Any, None]:
        first = True
        try:
            while (raw := await stream.next()) is not None:
                if first:
                    first = False
                    stream.call.answered = stream.metadata()
                stream.read(len(raw))
                yield answered(method, raw, self.url)
            if first:
                stream.call.answered = stream.metadata()
        finally:
            self._end(stream)

    async def _begin(self, method: Method[Any, Any] | None, path: str, call: Call, raw: bytes | None) -> ClientStream:
        """Send a call's headers, with its message unless it is to send any number."""
        call.unsent = True
        if call.remaining() <= 0:
            raise DeadlineExceeded(
                f"{self.url}: no time left for a call", hop=call.runtime.name, hint="allow more time"
            )
        connection = self._connector.connection
        while connection is None or not connection.usable or len(connection.streams) >= connection.peer_streams:
            connection = await self._connector.connected(call)
            try:
                with anyio.fail_after(call.remaining()):
                    await connection.slot()
            except TimeoutError:
                raise DeadlineExceeded(
                    f"{self.url}: the peer allowed no call in time",
                    hop=call.runtime.name,
                    hint=f"it takes {connection.peer_streams} at once: make fewer, or allow more time",
                ) from None
        tokens = self._tokens if method is not None else None
        metadata = outgoing(call, tokens) if method is not None else ()
        stream = ClientStream(connection, call, method, path, self.url)
        call.unsent = False
        try:
            connection.begin(stream, call.remaining(), metadata, raw, end=raw is not None)
        except BaseException:
            stream.stop()
            raise
        stream.taken = True
        self.active += 1
        return stream

    def _end(self, stream: ClientStream) -> None:
        if stream.taken:
            stream.taken = False
            self.active -= 1
            stream.stop()
