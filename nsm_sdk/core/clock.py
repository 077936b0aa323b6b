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

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return time.time()
