# SPDX-License-Identifier: Apache-2.0
"""Many calls and streams at once, cancelled, failing and cut off at random.

Does:  seeded storms over every adapter; afterwards nothing may be left and nobody may have hung.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from nsm_sdk.api import Connection, ConnectionEvent, Request, Selector
from nsm_sdk.core import Call
from nsm_sdk.errors import NotFound, NsmError
from tests.transport.adapters import Pair, dialing, every_adapter, pair


@every_adapter
@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_leaves_nothing(
    adapter: str, seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(seed)
    inside = 0

    async def do(call: Call, request: Request) -> None:
        nonlocal inside
        inside += 1
        try:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            if dice.random() < 0.2:
                raise NotFound("by chance")
            if dice.random() < 0.1:
                await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(0)
            inside -= 1

    async def watch(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        nonlocal inside
        inside += 1
        try:
            for _ in range(dice.randrange(30)):
                yield ConnectionEvent()
                await asyncio.sleep(0)
            if dice.random() < 0.3:
                await asyncio.Event().wait()
            if dice.random() < 0.3:
                raise NotFound("by chance")
        finally:
            inside -= 1

    ends: dict[str, int] = {}

    async def one(p: Pair) -> None:
        end = "fine"
        with anyio.move_on_after(dice.choice([0.0, 0.001, 0.01, 10.0])) as scope:
            try:
                if dice.random() < 0.5:
                    assert await p.request(timeout=dice.choice([0.05, 0.2])) == Connection()
                else:
                    async with aclosing(p.watch(timeout=dice.choice([0.05, 0.2]))) as stream:
                        async for _ in stream:
                            if dice.random() < 0.05:
                                break
            except NsmError as error:
                end = error.status.name
        ends["cancelled" if scope.cancelled_caught else end] = 1

    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # grpcio's own poller complains, on Python 3.12, of the loop of a test before.
        if "grpcio" not in adapter or "PollerCompletionQueue" not in context["message"]:
            complaints.append(context)

    loop.set_exception_handler(complain)
    with caplog.at_level(logging.WARNING):
        async with (
            asyncio.timeout(60),
            pair(adapter, tmp_path, do, watch, dialer=dialing(adapter, dial_timeout=0.05)) as p,
        ):
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(one, p)
                    if number % 20 == 0:
                        await asyncio.sleep(0)
                    if number == 150:
                        p.server.kill()
            await p.server.wait_ended()
            assert p.server.runtime.calls == 0
            assert p.client.runtime.running == {}
    assert inside == 0
    # A server of grpcio that is stopped at once resets its streams, and hangs up after that.
    broken = {"UNAVAILABLE", "CANCELLED"} if adapter == "unix-to-grpcio" else {"UNAVAILABLE"}
    assert "cancelled" in ends
    assert ends.keys() & broken, ends
    assert complaints == []
    assert [each.getMessage() for each in caplog.records] == []
