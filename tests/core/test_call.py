# SPDX-License-Identifier: Apache-2.0
"""Calls: time that is left, narrowed and set aside; events without a Begin; clocks."""

from __future__ import annotations

import asyncio
import math
import time

import anyio
import pytest

from nsm_sdk.core import (
    NO_EVENTS,
    NOBODY,
    Call,
    Cause,
    Outcome,
    Role,
    Running,
    SystemClock,
    cleanup_time,
    narrowed,
)
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.testing import VirtualClock, virtual_time


def hop() -> Role:
    return Role("hop")


@virtual_time
async def test_a_new_call_says_little() -> None:
    async with hop().serving(clock=VirtualClock()) as running:
        call = Call(running.runtime)
        assert call.remaining() == math.inf
        assert call.peer is NOBODY
        assert call.cause is Cause.CALL
        assert call.state is None
        assert (dict(call.metadata), call.onward, call.answer, dict(call.answered)) == ({}, {}, {}, {})
        assert Call(running.runtime).onward is not call.onward
        with pytest.raises(TypeError):
            call.metadata["shared"] = "no"  # type: ignore[index]
        with pytest.raises(AttributeError):
            call.extra = 1  # type: ignore[attr-defined]


@virtual_time
async def test_remaining_counts_down_and_stays_at_nothing() -> None:
    async with hop().serving(clock=VirtualClock()) as running:
        call = running.call(timeout=10.0)
        await asyncio.sleep(4.0)
        assert call.remaining() == 6.0
        await asyncio.sleep(40.0)
        assert call.remaining() == 0.0


async def _narrow(running: Running, timeout: float, seconds: float, takes: float) -> tuple[float, float, bool]:
    """(time left inside, time left after, whether it was cut off)"""
    call = running.call(timeout=timeout)
    inside, cut_off = math.nan, False
    try:
        with narrowed(call, seconds):
            inside = call.remaining()
            await asyncio.sleep(takes)
    except TimeoutError:
        cut_off = True
    return inside, call.remaining(), cut_off


@virtual_time
async def test_narrowed_time() -> None:
    async with hop().serving(clock=VirtualClock()) as running:
        assert await _narrow(running, 10.0, 2.0, 1.0) == (2.0, 9.0, False)
        assert await _narrow(running, 10.0, 2.0, 5.0) == (2.0, 8.0, True)
        # No more than the caller has; whose time it is then is the edge's business.
        assert await _narrow(running, 10.0, 20.0, 1.0) == (10.0, 9.0, False)
        assert await _narrow(running, math.inf, 2.0, 5.0) == (2.0, math.inf, True)


@virtual_time
async def test_narrowed_twice() -> None:
    async with hop().serving(clock=VirtualClock()) as running:
        call = running.call(timeout=10.0)
        with narrowed(call, 5.0), narrowed(call, 3.0):
            assert call.remaining() == 3.0
        with narrowed(call, 3.0), narrowed(call, 5.0):
            assert call.remaining() == 3.0
        assert call.remaining() == 10.0


@virtual_time
async def test_an_error_inside_narrowed_time_comes_out_and_restores_it() -> None:
    async with hop().serving(clock=VirtualClock()) as running:
        call = running.call(timeout=10.0)
        with pytest.raises(ZeroDivisionError), narrowed(call, 1.0):
            raise ZeroDivisionError
        assert call.remaining() == 10.0


@virtual_time
async def test_cleanup_time_is_shielded_and_bounded() -> None:
    clock, done = VirtualClock(), list[tuple[float, bool]]()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            for takes in (1.0, 100.0):
                with cleanup_time(2.0) as scope:
                    await anyio.sleep(takes)
                done.append((clock.now(), scope.cancelled_caught))

    with anyio.move_on_after(10.0):
        await work()
    assert done == [(11.0, False), (13.0, True)]


async def test_events_need_a_begin() -> None:
    for post in (NO_EVENTS.refresh, NO_EVENTS.reselect, NO_EVENTS.close):
        with pytest.raises(ProgrammingError, match="no Begin"):
            post()


async def test_the_machines_clock() -> None:
    clock = SystemClock()
    assert clock.now() == pytest.approx(asyncio.get_running_loop().time(), abs=5.0)
    assert clock.wall() == pytest.approx(time.time(), abs=5.0)


def test_a_clock_needs_a_loop() -> None:
    with pytest.raises(RuntimeError):
        SystemClock()


def test_causes_and_outcomes_are_texts() -> None:
    assert [str(cause) for cause in Cause] == ["call", "refresh", "reselect", "close", "rollback"]
    assert [str(outcome) for outcome in Outcome] == ["done", "failed", "skipped"]
