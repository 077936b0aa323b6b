# SPDX-License-Identifier: Apache-2.0
"""The timer heap, against a model: what is due runs once, in order, and dead cells do not pile up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nsm_sdk.core import Timer, TimerHeap
from nsm_sdk.testing import VirtualClock, VirtualLoop, virtual_time

T = TypeVar("T")


class Heap(RuleBasedStateMachine):
    """Sets, cancels, and lets time pass; the model is a list of what should happen when."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.heap = self.run(self._make())
        self.ran: list[tuple[float, int]] = []
        self.expected: list[tuple[float, int]] = []
        self.pending: dict[int, tuple[float, Timer]] = {}
        self.count = 0

    async def _make(self) -> TimerHeap:
        return TimerHeap()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def _set(self, delay: float) -> None:
        number, when = self.count, self.loop.time() + delay
        self.count += 1
        timer = self.heap.at(when, lambda: self.ran.append((max(when, 0.0), number)))
        self.pending[number] = when, timer

    @rule(delay=st.integers(-5, 100).map(float))
    def set(self, delay: float) -> None:
        self._set(delay)

    @rule(count=st.integers(60, 200))
    def set_many(self, count: int) -> None:
        for index in range(count):
            self._set(float(index % 7 + 1))

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.pending)))
        _, timer = self.pending.pop(number)
        timer.cancel()
        timer.cancel()
        assert not timer.pending

    @precondition(lambda self: len(self.pending) > 70)
    @rule(keep=st.integers(0, 5))
    def cancel_most(self, keep: int) -> None:
        for number in sorted(self.pending)[keep:]:
            self.pending.pop(number)[1].cancel()

    @rule(seconds=st.integers(0, 50).map(float))
    def wait(self, seconds: float) -> None:
        until = self.loop.time() + seconds
        self.run(asyncio.sleep(seconds))
        # What is due at this very instant runs in the same turn as the sleeper, or in the next.
        self.run(asyncio.sleep(0))
        self.run(asyncio.sleep(0))
        due = sorted((when, number) for number, (when, _) in self.pending.items() if when <= until)
        for when, number in due:
            _, timer = self.pending.pop(number)
            assert not timer.pending
            self.expected.append((max(when, 0.0), number))

    @invariant()
    def nothing_else_ran(self) -> None:
        assert sorted(self.ran) == sorted(self.expected)

    @invariant()
    def the_length_counts_what_is_pending(self) -> None:
        assert len(self.heap) == len(self.pending)

    @invariant()
    def dead_cells_are_few(self) -> None:
        cells = len(self.heap._cells)
        assert cells - len(self.pending) <= max(64, len(self.pending))

    def teardown(self) -> None:
        self.heap.close()
        assert len(self.heap) == 0
        self.run(asyncio.sleep(1000.0))
        assert sorted(self.ran) == sorted(self.expected)
        self.loop.close()


TestHeap = Heap.TestCase
TestHeap.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@virtual_time
async def test_timers_run_in_order_of_time_then_of_setting() -> None:
    heap, ran = TimerHeap(), list[str]()
    for name, when in (("c", 2.0), ("a", 1.0), ("b", 1.0)):
        heap.at(when, lambda name=name: ran.append(name))  # type: ignore[misc]
    await asyncio.sleep(3.0)
    assert ran == ["a", "b", "c"]


@virtual_time
async def test_a_function_may_set_and_cancel_timers() -> None:
    heap, ran, clock = TimerHeap(), list[tuple[float, str]](), VirtualClock()
    late = heap.at(2.0, lambda: ran.append((clock.now(), "cancelled")))

    def first() -> None:
        ran.append((clock.now(), "first"))
        late.cancel()
        heap.at(0.5, lambda: ran.append((clock.now(), "past")))
        heap.at(3.0, lambda: ran.append((clock.now(), "third")))

    heap.at(1.0, first)
    await asyncio.sleep(5.0)
    assert ran == [(1.0, "first"), (1.0, "past"), (3.0, "third")]
    assert len(heap) == 0


@virtual_time
async def test_a_function_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    heap, ran = TimerHeap(), list[str]()

    def breaks() -> None:
        raise ZeroDivisionError("a defect")

    heap.at(1.0, breaks)
    heap.at(1.0, lambda: ran.append("other"))
    with caplog.at_level(logging.ERROR, logger="nsm_sdk.core"):
        await asyncio.sleep(2.0)
    assert ran == ["other"]
    assert "a defect" in caplog.text


@virtual_time
async def test_a_closed_heap_runs_nothing() -> None:
    heap, ran = TimerHeap(), list[str]()
    before = heap.at(1.0, lambda: ran.append("before"))
    heap.close()
    after = heap.at(1.0, lambda: ran.append("after"))
    assert not before.pending
    assert not after.pending
    before.cancel()
    after.cancel()
    assert len(heap) == 0
    await asyncio.sleep(2.0)
    assert ran == []


@virtual_time
async def test_closing_from_a_timer_drops_the_rest() -> None:
    heap, ran = TimerHeap(), list[str]()
    heap.at(1.0, heap.close)
    heap.at(1.0, lambda: ran.append("same time"))
    await asyncio.sleep(2.0)
    assert ran == []
    assert len(heap) == 0


@virtual_time
async def test_a_refresh_a_second_for_a_day_leaves_no_dead_cells() -> None:
    heap = TimerHeap()
    timer = heap.at(600.0, lambda: None)
    for _ in range(10_000):
        timer.cancel()
        timer = heap.at(600.0, lambda: None)
    assert len(heap) == 1
    assert len(heap._cells) <= 130
    assert repr(heap) == "<TimerHeap pending=1>"
    heap.close()


@virtual_time
async def test_one_event_loop_timer_for_all() -> None:
    heap, loop = TimerHeap(), asyncio.get_running_loop()
    for number in range(1000, 0, -1):
        heap.at(float(number), lambda: None)
    live = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert len(live) == 1
    assert live[0].when() == 1.0
    heap.close()
