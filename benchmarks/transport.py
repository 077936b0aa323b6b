# SPDX-License-Identifier: Apache-2.0
"""What one call costs over each transport, against a bare `grpc.aio` echo in the same run.

Does:  interleaves rounds of bare echoes, our echoes and calls in process, over one hop and over three, and prints
       medians and ratios. Ours carry a token of 300 characters and a deadline; the bare ones do not.
Place: `python -m benchmarks transport`, or `python -m benchmarks.transport [rounds]`.
State: none.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.echo import Echo, message, one_loop
from benchmarks.measure import milli
from benchmarks.report import note
from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Chain, Element, Next, Role
from nsm_sdk.transport import Dialer, listen

CALLS = 20


class Answers(Element):
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


async def main(rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            calls: dict[str, Echo] = {
                "bare echo": await stack.enter_async_context(one_loop()),
                "bare echo again": await stack.enter_async_context(one_loop()),
            }
            dialer = Dialer(Tokens())
            client = await stack.enter_async_context(Role("client", services=[dialer]).serving())
            request = message()
            for url in (f"unix://{folder}/ours", "tcp://127.0.0.1:0", "inproc://bench"):
                kind = url.partition(":")[0]
                below: Element = Answers()
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
            for name, values in times.items():
                median = statistics.median(values)
                note(name, median / base, "echo", milli(median))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
