# SPDX-License-Identifier: Apache-2.0
"""A role on the `grpc.aio` server of an application.

Does:  answers the methods of a `Served` beside the application's own. Every call runs as a task of the role; grpc.aio's
       own task only waits for it, because grpc.aio cancels that one natively.
Place: `mount` is public; nothing else imports grpcio, and this module is imported when `mount` is used.
State: none of its own.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from nsm_sdk.api import Message, Method
from nsm_sdk.core import Call, Peer, Served
from nsm_sdk.errors import Cancelled, Internal, NsmError
from nsm_sdk.transport.metadata import checked, incoming
from nsm_sdk.transport.offers import Exchange, Extra, Offer, Received, Stream, Unary, asked, offers
from nsm_sdk.transport.status import PUSHBACK_KEY, TRAIL_KEY, encode

STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

WRITE_TIME = 0.25
"""Seconds for a message that is on its way when its stream ends."""

Context = Any  # grpc.aio.ServicerContext; its stubs lack what we need (time_remaining, async generators)


def mount(server: grpc.aio.Server, served: Served, *, extra: Extra | None = None) -> None:
    """Answer the methods of `served` on a server that belongs to the application, beside its own.

    Call it before `server.start()`. The application owns the server: its addresses, credentials and health. The role
    must be served meanwhile (`Served(running.bound, running.runtime)`); when it ends, its methods answer UNAVAILABLE.
    """
    server.add_generic_rpc_handlers((_Handlers(served, extra),))


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, served: Served, extra: Extra | None) -> None:
        self._handlers = {path: _handler(served, offer) for path, offer in offers(served.bound, extra).items()}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(details.method)


def _handler(served: Served, offer: Offer) -> Any:
    if offer.unary is not None:
        return grpc.unary_unary_rpc_method_handler(_unary(served, offer.method, offer.unary))
    if offer.stream is not None:
        return grpc.unary_stream_rpc_method_handler(_stream(served, offer.method, offer.stream))
    assert offer.exchange is not None
    # The number of messages is not part of the wire format: a handler for many serves every shape.
    return grpc.stream_stream_rpc_method_handler(_exchange(served, offer.method, offer.exchange))


def _remaining(context: Context) -> float:
    left: float | None = context.time_remaining()
    return math.inf if left is None else left


def _call(served: Served, context: Context, deadline: float) -> Call:
    return Call(
        served.runtime,
        peer=peer_of(context.peer()),
        metadata=incoming(context.invocation_metadata()),
        deadline=deadline,
    )


@functools.lru_cache(maxsize=256)
def peer_of(peer: str) -> Peer:
    """grpc's `ipv4:1.2.3.4:5`, address as a URL; callers over Unix sockets have no address of their own."""
    network, _, address = peer.partition(":")
    if network in ("ipv4", "ipv6"):
        # grpc percent-encodes the brackets of IPv6 addresses
        return Peer(address=f"tcp://{address.replace('%5B', '[').replace('%5D', ']')}")
    return Peer(address=f"unix://{address}" if network == "unix" else peer)


def _unary(served: Served, method: Method[Any, Any], unary: Unary) -> Callable[[bytes, Context], Any]:
    runtime, name = served.runtime, method.name

    async def answer(raw: bytes, context: Context) -> bytes:
        async def run(deadline: float) -> tuple[bytes, Call]:
            call = _call(served, context, deadline)
            call.size = len(raw)
            reply = await unary(call, asked(method, raw))
            return reply.SerializeToString(), call

        try:
            reply, call = await runtime.serve(run, _remaining(context), name)
            if call.answer:
                await context.send_initial_metadata(_headers(call, runtime.name))
        except NsmError as error:
            await refuse(context, error, runtime.name)
            raise
        return reply

    return answer


def _headers(call: Call, hop: str) -> list[tuple[str, str]]:
    try:
        return checked(call.answer)
    except NsmError as error:
        raise Internal(error.message, hop=hop, hint=error.hint) from error


def _stream(served: Served, method: Method[Any, Any], stream: Stream) -> Callable[[bytes, Context], Any]:
    async def answer(raw: bytes, context: Context) -> None:
        def produce(call: Call) -> AsyncGenerator[Message, None]:
            call.size = len(raw)
            return stream(call, asked(method, raw))

        await _produce(served, method.name, context, produce)

    return answer


def _exchange(served: Served, method: Method[Any, Any], exchange: Exchange) -> Callable[[Any, Context], Any]:
    async def answer(requests: AsyncIterator[bytes], context: Context) -> None:
        def produce(call: Call) -> AsyncGenerator[Message, None]:
            return exchange(call, Received(method, requests))

        await _produce(served, method.name, context, produce)

    return answer


async def _produce(
    served: Served, name: str, context: Context, produce: Callable[[Call], AsyncGenerator[Message, None]]
) -> None:
    """Write what a generator yields; it is made, read and closed in one task of the role."""
    runtime = served.runtime
    writing: asyncio.Future[None] | None = None

    async def run(deadline: float) -> None:
        nonlocal writing
        call = _call(served, context, deadline)
        opened = False
        async with aclosing(produce(call)) as items:
            async for item in items:
                raw = item.SerializeToString()
                try:
                    if not opened and call.answer:
                        await context.send_initial_metadata(_headers(call, runtime.name))
                    opened = True
                    # Waits while the caller does not read, so that nothing piles up here.
                    writing = asyncio.ensure_future(context.write(raw))
                    # One that is cut off half way would keep the status from being sent.
                    await asyncio.shield(writing)
                except NsmError:
                    raise
                except Exception as error:
                    raise Cancelled("the caller went away") from error
        if not opened and call.answer:
            await context.send_initial_metadata(_headers(call, runtime.name))

    try:
        await runtime.serve(run, _remaining(context), name, stream=True)
    except NsmError as error:
        if writing is not None and not writing.done():
            await asyncio.wait([writing], timeout=WRITE_TIME)
            writing.cancel()
        await refuse(context, error, runtime.name)


async def refuse(context: Context, error: NsmError, hop: str) -> None:
    """End a call with an error; raises grpc.aio's own."""
    failure = encode(error, hop)
    trailers: tuple[tuple[str, str | bytes], ...] = ((TRAIL_KEY, failure.trail),)
    if failure.pushback:
        trailers += ((PUSHBACK_KEY, failure.pushback),)
    await context.abort(STATUS_CODES[int(failure.status)], failure.text, trailers)
