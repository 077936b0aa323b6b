# SPDX-License-Identifier: Apache-2.0
"""Measuring side by side.

Does:  runs what is compared in turns, so that whatever else the machine does hits all of it alike; answers medians.
Place: the benchmarks.
State: none.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

Step = Callable[[], Awaitable[Any]]


class Times:
    """Seconds by name."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    async def take(self, name: str, step: Awaitable[Any]) -> Any:
        """Measure one step; answers what it answers."""
        began = time.perf_counter()
        answer = await step
        self.taken.setdefault(name, []).append(time.perf_counter() - began)
        return answer

    def median(self, name: str) -> float:
        """Of that name, in seconds."""
        return statistics.median(self.taken[name])

    def ratio(self, name: str, base: str) -> float:
        """Median against median."""
        return self.median(name) / self.median(base)

    def detail(self, name: str, base: str) -> str:
        """Both medians, in readable units."""
        return f"{milli(self.median(name))} against {milli(self.median(base))}"


def milli(seconds: float) -> str:
    """Milliseconds, or microseconds below one."""
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
