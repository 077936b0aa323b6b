# SPDX-License-Identifier: Apache-2.0
"""One timer heap per role.

Does:  runs functions at a time, with a single event-loop timer for the earliest of them; a cancelled timer is one dead
       cell, and the heap is rebuilt when most cells are dead (a refresh cancels one timer each time).
Place: inside `Runtime`.
State: the heap.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections.abc import Callable
from typing import final

logger = logging.getLogger("nsm_sdk.core")

_SMALL = 64
"""Below this many cells a rebuild is not worth it."""


@final
class Timer:
    """A function that will run once, unless cancelled."""

    __slots__ = ("_fn", "_heap", "at")

    def __init__(self, at: float, fn: Callable[[], object], heap: TimerHeap) -> None:
        self.at = at
        """When, by the event loop's clock."""
        self._fn: Callable[[], object] | None = fn
        self._heap = heap

    @property
    def pending(self) -> bool:
        """Whether it has neither run nor been cancelled."""
        return self._fn is not None

    def cancel(self) -> None:
        """Do not run; harmless afterwards."""
        if self._fn is not None:
            self._fn = None
            self._heap._died()

    def _take(self) -> Callable[[], object] | None:
        fn, self._fn = self._fn, None
        return fn


class TimerHeap:
    """Timers of one role; `len()` counts those that are pending."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._cells: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._dead = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed = math.inf
        """When the handle fires. It may be too early, after cancelling: that costs less than moving it each time."""
        self._closed = False

    def at(self, when: float, fn: Callable[[], object]) -> Timer:
        """Run `fn` at `when` (event loop time); at once if that is past."""
        timer = Timer(when, fn, self)
        if self._closed:
            timer._take()
            return timer
        self._count += 1
        heapq.heappush(self._cells, (when, self._count, timer))
        if when < self._armed:
            self._arm()
        return timer

    def close(self) -> None:
        """Drop all timers; later ones never run."""
        self._closed = True
        for _, _, timer in self._cells:
            timer._take()
        self._cells.clear()
        self._dead = 0
        self._arm()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._armed = math.inf
        if self._cells:
            self._armed = self._cells[0][0]
            self._handle = self._loop.call_at(self._armed, self._run)

    def _died(self) -> None:
        self._dead += 1
        if self._dead > _SMALL and self._dead * 2 > len(self._cells):
            self._cells = [cell for cell in self._cells if cell[2].pending]
            heapq.heapify(self._cells)
            self._dead = 0
            self._arm()

    def _run(self) -> None:
        self._handle = None
        self._armed = math.inf
        now = self._loop.time()
        while self._cells and (self._cells[0][0] <= now or not self._cells[0][2].pending):
            _, _, timer = heapq.heappop(self._cells)
            fn = timer._take()
            if fn is None:
                self._dead -= 1
                continue
            try:
                fn()
            except Exception:
                # A timer belongs to one connection; its defect must not stop the others' timers.
                logger.exception("a timer's function failed: %r", fn)
        self._arm()

    def __len__(self) -> int:
        return len(self._cells) - self._dead

    def __repr__(self) -> str:
        return f"<TimerHeap pending={len(self)}>"
