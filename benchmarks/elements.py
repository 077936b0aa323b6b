# SPDX-License-Identifier: Apache-2.0
"""What a chain costs by itself.

Does:  30 elements with one slot each forward both verbs, against nested coroutines, without and with an observer; and
       what a hop spends on path and tokens, against an echo.
Place: `python -m benchmarks elements`.
State: none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import echo
from benchmarks.measure import Times, milli
from benchmarks.report import note, row
from nsm_sdk.api import Connection, PathSegment, Request
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY
from nsm_sdk.core import END, NOBODY, Call, Chain, Element, Next, Role, Slot, State, Timing
from nsm_sdk.elements import UpdatePath
from nsm_sdk.security import Authenticate, Insecure, TokenGenerator, UpdateToken
from nsm_sdk.transport.metadata import outgoing

ELEMENTS = 30
ROUNDS = 300
CYCLES = 20
"""Request and close, in one round."""


class Keeps(Element):
    """One slot, both verbs."""

    def __init__(self) -> None:
        self._kept = Slot[int]("kept")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self._kept.set(call, 1)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._kept.pop(call)
        await next.close(call, conn)


Verb = Callable[[Any, Any], Coroutine[Any, Any, Any]]


def nested(below: Verb) -> Verb:
    """One coroutine that awaits the next and does nothing else."""

    async def run(call: Any, subject: Any) -> Any:
        return await below(call, subject)

    return run


def nested_keeping(request: Verb, close: Verb, key: str) -> tuple[Verb, Verb]:
    """The same with a value of its own in the state."""

    async def on_request(call: Any, subject: Any) -> Any:
        call.state[key] = 1
        return await request(call, subject)

    async def on_close(call: Any, subject: Any) -> Any:
        call.state.pop(key, None)
        await close(call, subject)

    return on_request, on_close


async def chains(running: Any) -> None:
    """The rows of 30 elements."""
    times = Times()

    async def answers(call: Any, request: Any) -> Any:
        return request.connection

    async def ends(call: Any, conn: Any) -> None:
        return None

    request: Verb = answers
    close: Verb = ends
    keeping: tuple[Verb, Verb] = (answers, ends)
    for number in range(ELEMENTS):
        request, close = nested(request), nested(close)
        keeping = nested_keeping(*keeping, f"slot {number}")
    chain = Chain("thirty", *(Keeps() for _ in range(ELEMENTS)))
    off, on = chain.bind(END), chain.bind(END, Timing(lambda place, call, seconds, error: None))
    subjects = {
        "nested": (request, close),
        "nested, with a slot": keeping,
        "off": (off.request, off.close),
        "on": (on.request, on.close),
    }
    message = Request(connection=Connection(id="a"))
    call = running.call()
    call.state = State()

    async def cycles(request: Verb, close: Verb) -> None:
        for _ in range(CYCLES):
            conn = await request(call, message)
            await close(call, conn)

    for _ in range(ROUNDS):
        for name, (ask, end) in subjects.items():
            await times.take(name, cycles(ask, end))
    one = {name: times.median(name) / CYCLES for name in subjects}
    what = f"{ELEMENTS} elements, one slot each, request + close"
    row(what, one["off"] * 1e6, 20, "us")
    row(
        "  against nested coroutines that only forward",
        one["off"] / one["nested"],
        2.5,
        detail=f"{milli(one['nested'])}",
    )
    note(
        "  against nested coroutines with a slot each",
        one["off"] / one["nested, with a slot"],
        "x",
        milli(one["nested, with a slot"]),
    )
    row("  observer on against off", one["on"] / one["off"], 2.5, detail=milli(one["on"]))


async def hop(running: Any) -> None:
    """What one hop spends on path and tokens."""
    caller = TokenGenerator(Insecure("nsmgr", "manager"))
    tokens = TokenGenerator(Insecure("forwarder", "forwarder"))
    chain = Chain("hop", UpdatePath("forwarder", opens=False), Authenticate(), UpdateToken(tokens)).bind(END)
    came = Request(connection=Connection(id="1", network_service="icmp-responder"))
    came.connection.path.path_segments.extend([PathSegment(name="nsc", id="0"), PathSegment(name="manager", id="1")])
    came.connection.path.index = 1
    token = caller.token("")[0]
    raw = came.SerializeToString()
    metadata = dict(outgoing(running.call(), caller))
    assert metadata.keys() == {TOKEN_KEY, EXPIRES_KEY}
    assert metadata[TOKEN_KEY] == token
    times = Times()

    async def work(requests: list[Request]) -> None:
        for request in requests:
            call = Call(running.runtime, NOBODY, metadata)
            await chain.request(call, request)
            outgoing(call, tokens)

    async with echo.one_loop() as one:
        for _ in range(200):
            requests = [Request.FromString(raw) for _ in range(10)]
            await times.take("hop", work(requests))
            await times.take("echo", one())
    began = time.perf_counter()
    caller.source.signer().sign({"sub": "spiffe://insecure.test/nsmgr/manager", "exp": 1})
    signing = time.perf_counter() - began
    row(
        "path and tokens of one hop, without authorisation",
        times.median("hop") / 10 / times.median("echo"),
        0.15,
        "echo",
        detail=f"{milli(times.median('hop') / 10)}; a new token costs {milli(signing)}, once in 30 s",
    )


async def main() -> None:
    async with Role("bench").serving() as running:
        await chains(running)
        await hop(running)


if __name__ == "__main__":
    asyncio.run(main())
