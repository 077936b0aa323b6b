# SPDX-License-Identifier: Apache-2.0
"""A peer in a process of its own: answers requests, or hangs where the connection's id is "hang".

Does:  listens at the URL given, prints the URL taken, and serves until it is killed.
Place: started by tests/transport/test_processes.py.
State: none.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

from nsm_sdk.api import ConnectionEvent, Request, Selector
from nsm_sdk.core import Call
from tests.transport.adapters import listening, role


async def do(call: Call, request: Request) -> None:
    """Hang on demand."""
    if request.connection.id == "hang":
        print("hanging", flush=True)  # noqa: T201  this is how the test is told
        await asyncio.Event().wait()


async def watch(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
    """One event, then silence."""
    yield ConnectionEvent()
    await asyncio.Event().wait()


async def main(adapter: str, url: str) -> None:
    """Serve."""
    made, _ = role(do, watch, name="process")
    async with made.serving(listen=[listening(adapter, url)]) as running:
        print(running.urls[0], flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
