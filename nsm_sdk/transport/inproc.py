# SPDX-License-Identifier: Apache-2.0
"""Calls within one process.

Does:  carries what the wire carries: messages are serialised and parsed both ways, errors go through status and text,
       deadlines and cancellation reach the other side, a role that is killed breaks its streams.
Place: behind `listen` and `Dialer` for `inproc://name`.
State: the names in use, one table per process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio

from nsm_sdk.api import Message, Method, Target
from nsm_sdk.core import Call, Mailbox, Peer, Served
from nsm_sdk.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    NotFound,
    NotReached,
    NsmError,
    Unimplemented,
)
from nsm_sdk.transport.metadata import TokenSource, checked, outgoing
from nsm_sdk.transport.offers import Extra, Offer, Received, answered, asked, offers
from nsm_sdk.transport.settings import ChannelSettings
from nsm_sdk.transport.status import decode, encode

BUFFER = 16
"""Messages of a stream that may wait for a reader; then the writer waits."""


class _Peer:
    """Somebody who listens under a name."""

    __slots__ = ("max_message", "offers", "open", "served")

    def __init__(self, served: Served, extra: Extra | None, max_message: int) -> None:
        self.served = served
        self.offers = offers(served.bound, extra)
        self.max_message = max_message
        self.open = True


_names: dict[str, _Peer] = {}
_waiting: dict[str, list[asyncio.Future[None]]] = {}


@asynccontextmanager
async def listening(served: Served, name: str, *, extra: Extra | None, max_message: int) -> AsyncGenerator[str, None]:
    """Answer calls to `inproc://name` in this process."""
    url = Target("inproc", name).url
    if name in _names:
        raise AlreadyExists(f"{url}: address in use", hint="choose another name")
    peer = _names[name] = _Peer(served, extra, max_message)
    for waiter in _waiting.pop(name, ()):
        if not waiter.done():
            waiter.set_result(None)
    try:
        yield url
    finally:
        peer.open = False
        del _names[name]


class InprocCarrier:
    """Calls to one name of this process."""

    active = 0

    def __init__(self, target: Target, tokens: TokenSource | None, settings: ChannelSettings) -> None:
        self.url = target.url
        self._name = target.address
        self._tokens = tokens
        self._settings = settings
        self._caller = Peer(address="inproc:")

    async def unary(self, method: Method[Any, Any], call: Call, request: Message) -> Any:
        peer, offer, metadata, raw = await self._begin(method, call, request)
        runtime = peer.served.runtime
        unary = offer.unary
        if unary is None:
            raise Unimplemented(f"{method.path} is a stream", hop=runtime.name)

        async def run(deadline: float) -> tuple[bytes, dict[str, str]]:
            inner = Call(runtime, peer=self._caller, metadata=metadata, deadline=deadline, size=len(raw))
            reply = await unary(inner, asked(method, raw))
            return reply.SerializeToString(), dict(checked(inner.answer)) if inner.answer else {}

        try:
            reply, headers = await runtime.serve(run, call.remaining(), method.name)
        except NsmError as error:
            raise self._failed(error, runtime.name) from None
        if headers:
            call.answered = headers
        self._fits(len(reply), self._settings.max_message, call.runtime.name)
        return answered(method, reply, self.url)

    async def stream(self, method: Method[Any, Any], call: Call, request: Message) -> AsyncGenerator[Any, None]:
        peer, offer, metadata, raw = await self._begin(method, call, request)
        stream = offer.stream
        if stream is None:
            raise Unimplemented(f"{method.path} is not a stream", hop=peer.served.runtime.name)

        def produce(inner: Call) -> AsyncGenerator[Any, None]:
            inner.size = len(raw)
            return stream(inner, asked(method, raw))

        async with aclosing(self._consume(peer, method, call, metadata, produce)) as items:
            async for item in items:
                yield item

    async def exchange(
        self, method: Method[Any, Any], call: Call, requests: AsyncIterable[Any]
    ) -> AsyncGenerator[Any, None]:
        peer, offer, metadata, _ = await self._begin(method, call, None)
        exchange = offer.exchange
        if exchange is None:
            raise Unimplemented(f"{method.path} takes one message", hop=peer.served.runtime.name)
        pipe: Mailbox[bytes] = Mailbox(BUFFER)
        broken: list[BaseException] = []

        async def send() -> None:
            try:
                async for request in requests:
                    await pipe.put(request.SerializeToString())
            except Exception as error:
                broken.append(error)
                pipe.end(Cancelled(f"{method.name}: the caller failed"))
            else:
                pipe.end()
            finally:
                if (close := getattr(requests, "aclose", None)) is not None:
                    await close()

        def produce(inner: Call) -> AsyncGenerator[Any, None]:
            return exchange(inner, Received(method, pipe))

        sending = call.runtime.spawn(send, f"send {method.name}")
        try:
            async with aclosing(self._consume(peer, method, call, metadata, produce)) as items:
                async for item in items:
                    yield item
        except NsmError:
            if broken:
                raise broken[0] from None
            raise
        finally:
            sending.cancel()
            pipe.end(Cancelled(f"{method.name}: the caller went away"))

    async def healthy(self, call: Call, service: str) -> bool:
        """Whether somebody listens under the name and takes calls."""
        peer = await self._find(call)
        if service and all(offer.method.service != service for offer in peer.offers.values()):
            raise NotFound(f"{self.url} has no service {service!r}", hop=peer.served.runtime.name)
        return peer.open and peer.served.runtime.accepting

    async def close(self) -> None:
        """Nothing is held."""

    def drop(self) -> None:
        """Nothing is held."""

    async def _consume(
        self,
        peer: _Peer,
        method: Method[Any, Any],
        call: Call,
        metadata: dict[str, str],
        produce: Callable[[Call], AsyncGenerator[Any, None]],
    ) -> AsyncGenerator[Any, None]:
        runtime = peer.served.runtime
        pipe: Mailbox[bytes] = Mailbox(BUFFER)
        headers: dict[str, str] = {}

        async def run(deadline: float) -> None:
            inner = Call(runtime, peer=self._caller, metadata=metadata, deadline=deadline)
            async with aclosing(produce(inner)) as items:
                async for item in items:
                    headers.update(inner.answer)
                    await pipe.put(item.SerializeToString())
            headers.update(inner.answer)

        try:
            result, scope = runtime.launch(run, call.remaining(), method.name, stream=True)
        except NsmError as error:
            raise self._failed(error, runtime.name) from None
        result.add_done_callback(lambda done: pipe.end(None if done.cancelled() else done.exception()))
        try:
            async for raw in pipe:
                if headers:
                    call.answered = dict(headers)
                self._fits(len(raw), self._settings.max_message, call.runtime.name)
                yield answered(method, raw, self.url)
            if headers:
                call.answered = dict(headers)
        except NsmError as error:
            raise self._failed(error, runtime.name) from None
        finally:
            scope.cancel()

    async def _begin(
        self, method: Method[Any, Any], call: Call, request: Message | None
    ) -> tuple[_Peer, Offer, dict[str, str], bytes]:
        call.unsent = True
        if call.remaining() <= 0:
            raise DeadlineExceeded(
                f"{self.url}: no time left for a call", hop=call.runtime.name, hint="allow more time"
            )
        raw = b"" if request is None else request.SerializeToString()
        metadata = dict(outgoing(call, self._tokens))
        peer = _names.get(self._name) or await self._find(call)
        hop = peer.served.runtime.name
        offer = peer.offers.get(method.path)
        if offer is None:
            raise Unimplemented(
                f"unknown service {method.service}", hop=hop, hint=f"{hop} does not offer it: check the address"
            )
        self._fits(len(raw), min(peer.max_message, self._settings.max_message), hop)
        call.unsent = False
        return peer, offer, metadata, raw

    async def _find(self, call: Call) -> _Peer:
        """Wait for the name as a channel waits for its peer."""
        peer = _names.get(self._name)
        if peer is not None:
            return peer
        waits = min(self._settings.dial_timeout, call.remaining() * 0.8) if call.patient else 0.0
        waiters = _waiting.setdefault(self._name, [])
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.append(mine)
        try:
            with anyio.move_on_after(waits):
                await mine
        finally:
            waiters.remove(mine)
            if not waiters:
                _waiting.pop(self._name, None)
        peer = _names.get(self._name)
        if peer is None:
            raise NotReached(
                f"{self.url}: nobody answers",
                hop=call.runtime.name,
                hint=f"is the peer running, and is this its address? (waited {waits:.3g} s)",
            )
        return peer

    def _fits(self, size: int, limit: int, hop: str) -> None:
        if size > limit:
            raise Exhausted(
                f"{self.url}: a message of {size} bytes is larger than {limit}",
                hop=hop,
                hint="send less at once, or raise max_message",
            )

    def _failed(self, error: NsmError, hop: str) -> NsmError:
        failure = encode(error, hop)
        return decode(failure.status, failure.text, failure.trail, self.url, failure.pushback)
