# SPDX-License-Identifier: Apache-2.0
"""Closing what is not refreshed.

Does:  the arithmetic, when the close comes, what a refresh changes, and who is refused.
Place: nsm_sdk.elements.timeout.
State: none.
"""

from __future__ import annotations

import math

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Path, PathSegment, Request, set_expiry
from nsm_sdk.core import Call, Cause, Element, Events, Next
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.timeout import Timeout, close_after
from nsm_sdk.errors import InvalidRequest, Unauthenticated, Unavailable
from nsm_sdk.testing import START_WALL, FailTimes, Park, Probe, VirtualClock, rig, virtual_time


def request(life: float | None, *, now: float = 0.0) -> Request:
    """A request whose caller's token lives `life` seconds from `now`."""
    caller = PathSegment(name="nsc", id="nsc-id")
    if life is not None:
        set_expiry(caller, START_WALL + now + life)
    path = Path(index=1, path_segments=[caller, PathSegment(name="nse", id="nse-id")])
    return Request(connection=Connection(id="nse-id", path=path))


@given(life=st.floats(0.001, 1e6), request_time=st.floats(0.001, 1e9) | st.sampled_from((0.0, math.inf)))
def test_time_is_left_for_a_close_and_nothing_ends_at_once(life: float, request_time: float) -> None:
    delay = close_after(life, request_time)
    assert 0.75 * life <= delay <= life
    if 0 < request_time < math.inf:
        assert life - delay >= min(request_time, 0.1 * life) - 1e-6


@given(st.floats(max_value=0, allow_nan=False), st.floats(0, 1e6))
def test_what_is_over_is_over(life: float, request_time: float) -> None:
    assert close_after(life, request_time) == 0


@virtual_time
async def test_closed_when_nobody_refreshes() -> None:
    async with rig(Begin(), Timeout()) as bench:
        await bench.request(request(100))
        await bench.left()
        await _pass(99.9)
        assert bench.seen.closes == 0
        await _pass(0.2)
        assert [passed.cause for passed in bench.seen.of("close")] == [Cause.CLOSE]
        assert not await bench.left()


@virtual_time
async def test_a_refresh_moves_the_close_away() -> None:
    async with rig(Begin(), Timeout()) as bench:
        for now in (0, 60, 120):
            await bench.request(request(100, now=now))
            assert len(bench.runtime.timers) == 1
            await _pass(60)
        assert bench.seen.closes == 0
        await _pass(41)
        assert bench.seen.closes == 1


@virtual_time
async def test_a_failed_refresh_leaves_the_old_time() -> None:
    fails = FailTimes(1, Unavailable("below"))
    async with rig(Begin(), Timeout(), Probe(), fails) as bench:
        fails.times = 0
        await bench.request(request(100))
        fails.times = 2
        with pytest.raises(Unavailable):
            await bench.request(request(1000))
        await _pass(101)
        assert bench.seen.closes == 1


@virtual_time
async def test_a_refresh_that_is_under_way_wins_over_the_timer() -> None:
    park = Park()
    async with rig(Begin(), Timeout(), park) as bench:
        park.release()
        await bench.request(request(100))
        park.hold()
        await _pass(95)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.request, request(100, now=95))
            await park.reached()
            await _pass(10)
            park.release()
        assert bench.seen.closes == 0
        await _pass(80)
        assert bench.seen.closes == 0
        await _pass(11)
        assert bench.seen.closes == 1


@virtual_time
async def test_a_refresh_that_is_under_way_and_fails_does_not_win() -> None:
    park, fails = Park(), FailTimes(0, Unavailable("below"))
    async with rig(Begin(), Timeout(), park, fails) as bench:
        park.release()
        await bench.request(request(100))
        park.hold()
        fails.times = 2
        await _pass(95)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_free, park)
            with pytest.raises(Unavailable):
                await bench.request(request(100, now=95))
        await _pass(0)
        assert bench.seen.closes == 1
        assert not await bench.left()


async def _free(park: Park) -> None:
    await park.reached()
    await _pass(10)
    park.release()


@virtual_time
async def test_a_close_cancels_the_timer() -> None:
    async with rig(Begin(), Timeout()) as bench:
        await bench.request(request(100))
        await bench.close()
        assert not await bench.left()


@virtual_time
async def test_refused_before_anything_is_built() -> None:
    async with rig(Begin(), Timeout()) as bench:
        with pytest.raises(InvalidRequest):
            await bench.request(request(None))
        with pytest.raises(Unauthenticated):
            await bench.request(request(0))
        with pytest.raises(InvalidRequest):
            await bench.request(Request(connection=Connection(id="a")))
        assert bench.seen.requests == 0
        assert not await bench.left()


@virtual_time
async def test_a_life_shorter_than_the_deadline_is_no_reason_to_close_at_once() -> None:
    async with rig(Begin(), Timeout()) as bench:
        await bench.request(request(10), timeout=60)
        await _pass(8.9)
        assert bench.seen.closes == 0
        await _pass(0.2)
        assert bench.seen.closes == 1


@virtual_time
async def test_a_thousand_refreshes_keep_one_timer() -> None:
    async with rig(Begin(), Timeout()) as bench:
        for _ in range(1000):
            await bench.request(request(100))
        assert len(bench.runtime.timers) == 1
        assert len(bench.runtime.timers._cells) < 200
        await bench.close()


async def _pass(seconds: float) -> None:
    await VirtualClock().advance(seconds)


class Grab(Element):
    """Shows the events of the connection."""

    def __init__(self) -> None:
        self.events: Events | None = None

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.events = call.events
        return await next.request(call, request)


@virtual_time
async def test_a_reselect_that_fails_leaves_the_old_time() -> None:
    grab, fails, probe = Grab(), FailTimes(0, lambda: Unavailable("below")), Probe()
    async with rig(Begin(), Timeout(), grab, probe, fails) as bench:
        await bench.request(request(100))
        fails.times = 10
        assert grab.events is not None
        grab.events.reselect()
        await _pass(1)
        assert [passed.cause for passed in probe.seen.calls] == [Cause.CALL, Cause.RESELECT, Cause.RESELECT]
        await _pass(100)
        assert probe.seen.of("close")[-1].cause is Cause.CLOSE
        assert not await bench.left()
