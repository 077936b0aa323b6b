# SPDX-License-Identifier: Apache-2.0
"""The clock port.

Does:  `now` for durations and deadlines, `wall` for what peers read (token and registry expiry). Nobody else asks the
       operating system for the time.
Place: `Runtime.clock`; the test kit has one in virtual time.
State: none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Seconds, monotonic; the event loop's own time, so that deadlines and scopes agree."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clock, seen through the running event loop."""

    # Functions of C where they can be: every hop asks ten times for each request.
    now: Callable[[], float]
    wall: Callable[[], float]

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        plain = type(loop).time is asyncio.BaseEventLoop.time
        self.now = time.monotonic if plain else loop.time
        self.wall = time.time
