# SPDX-License-Identifier: Apache-2.0
"""Waiting until nothing is left to do now.

Does:  lets every other task run until all of them wait for time, for I/O or for each other; takes no time itself.
Place: tests, instead of a sleep.
State: none.
"""

from __future__ import annotations

import asyncio

_BLIND_TURNS = 50
"""For event loops that do not show their queue."""


async def settled(turns: int = 10_000) -> None:
    """Return when no other task can go on without time passing, I/O or a thread; gives up after `turns`."""
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    if ready is None:
        turns = min(turns, _BLIND_TURNS)
    for _ in range(turns):
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return
