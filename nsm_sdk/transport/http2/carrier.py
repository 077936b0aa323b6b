# SPDX-License-Identifier: Apache-2.0
"""Calls to one peer over sockets of our own.

Does:  makes messages of answers and the other way round. A call to a peer that is not there fails with `NotReached`;
       one to a peer that is there fails as soon as its connection does.
Place: behind `Dialer`.
State: how many calls are running.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any

import anyio

from nsm_sdk.api import Message, Method, Target
from nsm_sdk.core import Call
from nsm_sdk.errors import DeadlineExceeded, NotReached
from nsm_sdk.transport import health
from nsm_sdk.transport.http2.calling import ClientStream
from nsm_sdk.transport.http2.client import ClientConnection
from nsm_sdk.transport.http2.connection import Connections
from nsm_sdk.transport.http2.connector import Connector
from nsm_sdk.transport.metadata import TokenSource, outgoing
from nsm_sdk.transport.offers import answered
from nsm_sdk.transport.settings import ChannelSettings


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
                    raw = request.SerializeToString()
                    stream.check(raw)
                    stream.send(raw)
                    await stream.room()
                    if stream.over:
                        # The reading side learns why the call is over.
                        return
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
            return health.is_serving(await stream.one())
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
