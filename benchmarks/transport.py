# SPDX-License-Identifier: Apache-2.0
"""What one call costs over each transport, against a bare `grpc.aio` echo in the same run.

Does:  interleaves rounds of bare echoes, our echoes and calls in process, over one hop and over three, and prints
       medians and ratios. Ours carry a token of 300 characters and a deadline; the bare ones do not.
Place: `python benchmarks/transport.py [rounds]`.
State: none.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Chain, Element, Next, Role
from nsm_sdk.transport import Dialer, listen

CALLS = 20
SIZE = 1082


class Echo(Element):
    """Answers the connection of the request."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        return request.connection


class Onward(Element):
    """Sends every request on to the next hop."""

    def __init__(self, dialer: Dialer, url: str) -> None:
        self._dialer = dialer
        self._url = url

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        far = self._dialer(self._url).connection
        assert far is not None
        return await far.request(Call(call.runtime, deadline=call.deadline), request)


class Tokens:
    """A caller with a token of the usual length."""

    def token(self, peer: str) -> tuple[str, float]:
        return "t" * 300, 1_800_000_000.0


def message() -> Request:
    """A Request of about 1,082 bytes."""
    request = Request(connection=Connection(id="a" * 36))
    request.connection.labels["filler"] = "x" * (SIZE - len(request.SerializeToString()) - 14)
    return request


@asynccontextmanager
async def bare(path: str) -> AsyncGenerator[Callable[[], Awaitable[Any]], None]:
    """A bare echo of the same bytes, parsed on both sides as any servicer does."""

    async def echo(request: Request, context: Any) -> Connection:
        return request.connection

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                echo, Request.FromString, lambda answer: answer.SerializeToString()
            )

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    server.add_insecure_port(path)
    await server.start()
    channel = grpc.aio.insecure_channel(path)
    stub: Any = channel.unary_unary(
        "/bare/Echo",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=Connection.FromString,
    )
    request = message()
    try:
        yield lambda: stub(request, timeout=10)
    finally:
        await channel.close()
        await server.stop(None)


async def main(rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "bare echo": await stack.enter_async_context(bare(f"unix:{folder}/bare")),
                "bare echo again": await stack.enter_async_context(bare(f"unix:{folder}/again")),
            }
            dialer = Dialer(Tokens())
            client = await stack.enter_async_context(Role("client", services=[dialer]).serving())
            request = message()
            for url in (f"unix://{folder}/ours", "tcp://127.0.0.1:0", "inproc://bench"):
                kind = url.partition(":")[0]
                below: Element = Echo()
                for hops in (1, 2, 3):
                    one = url if kind == "tcp" else f"{url}{hops}"
                    served = await stack.enter_async_context(
                        Role(f"hop {hops}", connection=Chain("hop", below)).serving(listen=[listen(one)])
                    )
                    below = Onward(dialer, served.urls[0])
                    found = dialer(served.urls[0]).connection
                    assert found is not None

                    def ours(far: Next = found) -> Awaitable[Any]:
                        return far.request(client.call(timeout=10), request)

                    if hops != 2:
                        calls[kind if hops == 1 else f"{kind}, {hops} hops"] = ours
            times: dict[str, list[float]] = {name: [] for name in calls}
            for number in range(rounds + 1):
                for name, call in calls.items():
                    for _ in range(CALLS):
                        began = time.perf_counter()
                        await call()
                        if number:
                            times[name].append(time.perf_counter() - began)
            base = statistics.median(times["bare echo"])
            print(f"{'':18}{'median us':>10}{'ratio':>8}")
            for name, values in times.items():
                median = statistics.median(values)
                print(f"{name:18}{median * 1e6:10.0f}{median / base:8.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
