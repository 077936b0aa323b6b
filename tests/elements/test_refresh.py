# SPDX-License-Identifier: Apache-2.0
"""Refreshing in time.

Does:  the arithmetic, when refreshes come, what a failed one does, who is asked for help, and that nothing is left.
Place: nsm_sdk.elements.refresh.
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
from nsm_sdk.elements.refresh import FLOOR, REFRESHING, Refresh, Refreshing, refresh_after, retry_after
from nsm_sdk.errors import Unavailable
from nsm_sdk.testing import START_WALL, FailTimes, Park, Probe, Rig, VirtualClock, rig, virtual_time

NEVER = 10**9


class Extend(Element):
    """Stands for the hops below: gives each request a path whose tokens live so long from now."""

    def __init__(self, *lives: float) -> None:
        self.lives = lives

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        path = Path(path_segments=[PathSegment(name=f"s{at}", id=conn.id) for at in range(len(self.lives))])
        for hop, life in zip(path.path_segments, self.lives, strict=True):
            if not math.isnan(life):
                set_expiry(hop, call.runtime.clock.wall() + life)
        conn.path.CopyFrom(path)
        return conn


class Look(Element):
    """Stands where heal stands, and shows how refreshing goes."""

    _refreshing = REFRESHING

    def __init__(self, helps: bool = False) -> None:
        self.held: Refreshing | None = None
        self.events: Events | None = None
        self.helps = helps
        self.troubles: list[int] = []

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.held, self.events = REFRESHING.get(call), call.events
        if self.helps and self.held is not None:
            self.held.on_trouble = lambda held: self.troubles.append(held.failures)
        return await next.request(call, request)


def still() -> float:
    return 0.5


async def _pass(seconds: float) -> None:
    await VirtualClock().advance(seconds)


def _causes(bench: Rig) -> list[Cause]:
    return [passed.cause for passed in bench.seen.calls]


LIVES = st.lists(st.none() | st.floats(-1e6, 1e8), max_size=8)


@given(index=st.integers(0, 10), lives=LIVES)
def test_never_sooner_than_the_floor_and_never_after_the_first_expiry(index: int, lives: list[float | None]) -> None:
    delay = refresh_after(index, lives)
    known = [life for life in lives if life is not None]
    if delay is None:
        assert not known
        return
    assert delay >= FLOOR
    assert delay <= max(FLOOR, 0.9 * min(known) + 1e-9)


@given(lives=st.lists(st.floats(10, 1e6), min_size=2, max_size=8))
def test_the_client_comes_first(lives: list[float]) -> None:
    delays = [refresh_after(index, lives) for index in range(len(lives))]
    times = [delay for delay in delays if delay is not None]
    assert times == sorted(times)
    assert max(times) < 0.4 * min(lives)


@given(pause=st.floats(0, 100), left=st.floats(-100, 1e6))
def test_a_retry_comes_before_the_expiry_while_there_is_time(pause: float, left: float) -> None:
    delay = retry_after(pause, left)
    assert delay >= FLOOR
    if left > 2 * FLOOR:
        assert delay <= left / 2
    assert delay <= max(pause, FLOOR)


@virtual_time
async def test_refreshed_at_a_fifth_of_the_shortest_life_again_and_again() -> None:
    look = Look()
    async with rig(Begin(), Refresh(), look, Extend(600, 100, 300)) as bench:
        await bench.request()
        assert look.held is not None
        assert look.held.next_refresh == START_WALL + 20
        assert look.held.expires_at == START_WALL + 100
        await _pass(19.9)
        assert bench.seen.requests == 1
        await _pass(0.2)
        assert _causes(bench) == [Cause.CALL, Cause.REFRESH]
        await _pass(60)
        assert bench.seen.requests == 5
        assert look.held.next_refresh == pytest.approx(START_WALL + 100)
        assert len(bench.runtime.timers) == 1
        await bench.close()
        assert not await bench.left()
        await _pass(100)
        assert bench.seen.requests == 5


@virtual_time
async def test_a_request_of_the_caller_counts_as_a_refresh() -> None:
    async with rig(Begin(), Refresh(), Extend(100, 100)) as bench:
        for _ in range(5):
            await bench.request()
            await _pass(15)
        assert _causes(bench) == [Cause.CALL] * 5
        await bench.close()


@virtual_time
async def test_a_path_that_never_expires_is_not_refreshed() -> None:
    async with rig(Begin(), Refresh(), Extend(math.nan, math.nan)) as bench:
        await bench.request()
        assert not (await bench.left()).timers
        await bench.close()


@virtual_time
async def test_a_first_request_that_fails_leaves_nothing() -> None:
    async with rig(Begin(), Refresh(), FailTimes(1, Unavailable("x"))) as bench:
        with pytest.raises(Unavailable):
            await bench.request()
        assert not await bench.left()


@virtual_time
async def test_tokens_that_are_past_cause_no_storm() -> None:
    async with rig(Begin(), Refresh(), Extend(600, -5)) as bench:
        await bench.request()
        await _pass(600)
        assert 20 < bench.seen.requests < 100
        await bench.close()


@virtual_time
async def test_failed_refreshes_come_at_growing_pauses_and_recover() -> None:
    fails, look = FailTimes(0, lambda: Unavailable("below")), Look()
    async with rig(Begin(), Refresh(jitter=still), look, Extend(1000, 1000), fails) as bench:
        await bench.request()
        fails.times = NEVER
        await _pass(200.1)
        await _pass(0.2 + 0.4 + 0.8)
        assert look.held is not None
        assert look.held.failures == 4
        assert isinstance(look.held.error, Unavailable)
        fails.times = 0
        await _pass(1.6)
        assert _trouble(look.held) == (0, None)
        assert look.held.next_refresh == pytest.approx(START_WALL + 203 + 200, abs=0.2)
        await bench.close()
        assert not await bench.left()


@virtual_time
async def test_a_refresh_is_tried_before_the_expiry_however_long_the_pauses_are() -> None:
    fails, probe = FailTimes(0, lambda: Unavailable("below")), Probe()
    async with rig(Begin(), Refresh(retry=1000, longest=1000, jitter=still), probe, Extend(100, 100), fails) as bench:
        await bench.request()
        fails.times = NEVER
        await _pass(99.9)
        assert probe.seen.requests > 8
        await bench.close()


@virtual_time
async def test_once_the_tokens_are_past_the_connection_is_selected_anew() -> None:
    fails, probe = FailTimes(0, lambda: Unavailable("below")), Probe()
    async with rig(Begin(), Refresh(jitter=still), probe, Extend(100, 100), fails) as bench:
        await bench.request()
        fails.times = NEVER
        await _pass(100)
        assert Cause.RESELECT not in {passed.cause for passed in probe.seen.calls}
        await _pass(30)
        again = [passed for passed in probe.seen.of("request") if passed.cause is Cause.RESELECT]
        assert len(again) >= 2, "it goes on trying after a reselect that failed"
        fails.times = 0
        await _pass(11)
        assert probe.seen.of("request")[-1].answer is not None
        before = probe.seen.requests
        await _pass(20.1)
        assert probe.seen.of("request")[-1].cause is Cause.REFRESH
        assert probe.seen.requests > before
        await bench.close()
        assert not await bench.left()


@virtual_time
async def test_whoever_helps_is_asked_and_nobody_selects_beside_it() -> None:
    fails, look, probe = FailTimes(0, lambda: Unavailable("below")), Look(helps=True), Probe()
    async with rig(Begin(), Refresh(jitter=still), look, probe, Extend(100, 100), fails) as bench:
        await bench.request()
        fails.times = NEVER
        await _pass(20.3)
        assert look.troubles == []
        await _pass(1)
        assert look.troubles[0] == 3
        await _pass(200)
        assert {passed.cause for passed in probe.seen.calls} == {Cause.CALL, Cause.REFRESH}
        assert look.troubles == list(range(3, 3 + len(look.troubles)))
        await bench.close()


@virtual_time
async def test_a_timer_that_runs_out_during_a_request_adds_none() -> None:
    park = Park()
    async with rig(Begin(), Refresh(), Extend(100, 100), park) as bench:
        park.release()
        await bench.request()
        park.hold()
        await _pass(19)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.request)
            await park.reached()
            await _pass(5)
            park.release()
        await _pass(1)
        assert _causes(bench) == [Cause.CALL] * 2
        await _pass(20)
        assert bench.seen.requests == 3
        await bench.close()


@virtual_time
async def test_a_failed_request_during_which_the_timer_ran_out_is_made_up_for() -> None:
    fails, park = FailTimes(0, lambda: Unavailable("below")), Park()
    async with rig(Begin(), Refresh(), Extend(100, 100), park, fails) as bench:
        park.release()
        await bench.request()
        park.hold()
        fails.times = 2
        await _pass(19)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_free, park, 5.0)
            with pytest.raises(Unavailable):
                await bench.request()
        await _pass(1)
        assert _causes(bench) == [Cause.CALL, Cause.REFRESH]
        await bench.close()


@virtual_time
async def test_a_close_during_a_refresh_ends_it() -> None:
    park = Park()
    async with rig(Begin(), Refresh(), Extend(100, 100), park) as bench:
        park.release()
        await bench.request()
        park.hold()
        await _pass(21)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.close)
            await park.reached()
            park.release()
        assert not await bench.left()
        await _pass(100)
        assert bench.seen.requests == 2


@pytest.mark.parametrize("helps", [True, False])
def test_a_reselect_of_somebody_else_that_fails_is_followed_up_unless_it_is_a_helper(helps: bool) -> None:
    @virtual_time
    async def run() -> None:
        fails, look = FailTimes(0, lambda: Unavailable("below")), Look(helps=helps)
        async with rig(Begin(), Refresh(), look, Extend(100, 100), fails) as bench:
            await bench.request()
            fails.times = 2
            assert look.events is not None
            look.events.reselect()
            await _pass(10)
            assert fails.seen.requests == (2 if helps else 3)
            await bench.close()
            assert not await bench.left()

    run()


@virtual_time
async def test_a_timer_that_runs_out_during_a_close_sets_no_other() -> None:
    park = Park(verb="close")
    async with rig(Begin(), park, Refresh(), Extend(100, 100)) as bench:
        await bench.request()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.close)
            await park.reached()
            await _pass(21)
            park.release()
        assert not await bench.left()
        assert bench.seen.requests == 1


def _trouble(held: Refreshing) -> tuple[int, BaseException | None]:
    return held.failures, held.error


async def _free(park: Park, after: float) -> None:
    await park.reached()
    await _pass(after)
    park.release()
