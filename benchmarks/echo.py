# SPDX-License-Identifier: Apache-2.0
"""What everything is compared with: bare `grpc.aio`.

Does:  `one_loop` serves and calls an echo of a 1,082-byte Request on the running loop; `two_processes` has the server
       in a process of its own; `relay` is a row of processes that pass the bytes on, the last of which echoes them.
Place: the benchmarks. `python -m benchmarks.echo SOCKET [NEXT]` is one process of these.
State: sockets in a temporary folder, processes, for as long as the context is open.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from nsm_sdk.api import Connection, Request

SIZE = 1082
"""Bytes: a Request on its way to the forwarder, as recorded."""
METHOD = "/bare/Echo"
Echo = Callable[[], Awaitable[Any]]


def message() -> Request:
    """A Request of 1,082 bytes."""
    request = Request(connection=Connection(id="a" * 36))
    label = "filler"
    request.connection.labels[label] = "x" * (SIZE - 64)
    request.connection.labels[label] += "x" * (SIZE - request.ByteSize())
    assert request.ByteSize() == SIZE
    return request


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._answer


def _parsed() -> Any:
    """Both messages parsed, as any servicer does."""

    async def echo(request: Request, context: Any) -> Connection:
        return request.connection

    return grpc.unary_unary_rpc_method_handler(echo, Request.FromString, lambda answer: answer.SerializeToString())


def _stub(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        METHOD,
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=Connection.FromString,
    )


async def _serve(path: str, handler: Any) -> grpc.aio.Server:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handlers(handler),))
    server.add_insecure_port(path)
    await server.start()
    return server


@asynccontextmanager
async def one_loop() -> AsyncGenerator[Echo, None]:
    """Server and caller on this loop, over a unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"unix:{folder}/echo"
        server = await _serve(path, _parsed())
        channel = grpc.aio.insecure_channel(path)
        stub, request = _stub(channel), message()
        try:
            yield lambda: stub(request, timeout=10)
        finally:
            await channel.close()
            await server.stop(None)


@asynccontextmanager
async def two_processes() -> AsyncGenerator[Echo, None]:
    """The server in another process, over a unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"unix:{folder}/echo"
        async with _process(path, "parsed"), _channel(path) as channel:
            stub, request = _stub(channel), message()
            yield lambda: stub(request, timeout=10)


@asynccontextmanager
async def relay(hops: int) -> AsyncGenerator[Echo, None]:
    """`hops` processes in a row, each with a `grpc.aio` server and a channel, that pass on bytes; the last echoes."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            onward = ""
            for number in range(hops):
                path = f"unix:{folder}/{number}"
                await stack.enter_async_context(_process(path, onward))
                onward = path
            channel = await stack.enter_async_context(_channel(onward))
            stub: Any = channel.unary_unary(METHOD)
            raw = message().SerializeToString()
            yield lambda: stub(raw, timeout=10)


@asynccontextmanager
async def _channel(path: str) -> AsyncGenerator[grpc.aio.Channel, None]:
    channel = grpc.aio.insecure_channel(path)
    try:
        yield channel
    finally:
        await channel.close()


@asynccontextmanager
async def _process(path: str, onward: str) -> AsyncGenerator[None, None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo", path, onward, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline(), "the echo's process did not start"
        yield
    finally:
        process.kill()
        await process.wait()


async def _main(path: str, onward: str) -> None:
    if onward == "parsed":
        handler = _parsed()
    elif onward:
        stub: Any = grpc.aio.insecure_channel(onward).unary_unary(METHOD)

        async def passed(raw: bytes, context: Any) -> bytes:
            answer: bytes = await stub(raw, timeout=context.time_remaining())
            return answer

        handler = grpc.unary_unary_rpc_method_handler(passed)
    else:

        async def same(raw: bytes, context: Any) -> bytes:
            return raw

        handler = grpc.unary_unary_rpc_method_handler(same)
    server = await _serve(path, handler)
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))
