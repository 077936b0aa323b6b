# SPDX-License-Identifier: Apache-2.0
"""Virtual time: what it does, and what it refuses."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Callable

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsm_sdk.core import KeyedLock, Runtime, SystemClock
from nsm_sdk.testing import (
    DAY,
    START_WALL,
    LeakError,
    VirtualClock,
    VirtualTimeError,
    current_clock,
    run_virtual,
    virtual_time,
)


@virtual_time
async def test_sleeping_takes_virtual_time_only() -> None:
    clock, began = VirtualClock(), time.perf_counter()
    await asyncio.sleep(DAY)
    await anyio.sleep(DAY)
    assert clock.now() == 2 * DAY
    assert clock.wall() == START_WALL + 2 * DAY
    assert time.perf_counter() - began < 10.0


@virtual_time(start_wall=1_000.0)
async def test_the_wall_clock_can_be_stepped_alone() -> None:
    clock = VirtualClock()
    assert clock.wall() == 1_000.0
    clock.step_wall(-500.0)
    assert (clock.now(), clock.wall()) == (0.0, 500.0)


@virtual_time
async def test_deadlines_of_anyio_and_of_asyncio() -> None:
    clock = VirtualClock()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(30.0):
            await anyio.sleep_forever()
    assert clock.now() == 30.0
    with anyio.move_on_after(5.0) as scope:
        await asyncio.Event().wait()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(7.0):
            await asyncio.Event().wait()
    assert clock.now() == 42.0


@virtual_time
async def test_timers_of_a_runtime_and_tasks_meet_in_order() -> None:
    clock, order = VirtualClock(), list[tuple[float, str]]()

    async def sleeper(name: str, seconds: float) -> None:
        await anyio.sleep(seconds)
        order.append((clock.now(), name))

    async with anyio.create_task_group() as tasks:
        runtime = Runtime("hop", clock)
        runtime.after(20.0, lambda: order.append((clock.now(), "timer")))
        tasks.start_soon(sleeper, "late", 30.0)
        tasks.start_soon(sleeper, "early", 10.0)
    assert order == [(10.0, "early"), (20.0, "timer"), (30.0, "late")]


@virtual_time
async def test_locks_hand_over_without_time_passing() -> None:
    lock: KeyedLock[str] = KeyedLock()
    got: list[int] = []

    async def one(number: int) -> None:
        await lock.acquire("key")
        got.append(number)
        await anyio.sleep(1.0)
        lock.release("key")

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(one, number)
    assert got == [0, 1, 2, 3, 4]
    assert VirtualClock().now() == 5.0


@virtual_time
async def test_advance_runs_what_is_due_and_what_that_sets_off() -> None:
    clock, ran = VirtualClock(), list[str]()
    loop = asyncio.get_running_loop()
    loop.call_later(10.0, lambda: loop.call_soon(lambda: ran.append("set off")))
    await clock.advance(9.0)
    assert ran == []
    await clock.advance(1.0)
    assert ran == ["set off"]


def test_the_answer_and_the_error_come_out() -> None:
    async def answers(number: int, *, more: int) -> int:
        return number + more

    async def fails() -> None:
        raise ZeroDivisionError("mine")

    assert run_virtual(answers, 1, more=2) == 3
    with pytest.raises(ZeroDivisionError, match="mine"):
        run_virtual(fails)


def test_a_decorated_test_is_plain_and_takes_arguments() -> None:
    @virtual_time
    async def inner(number: int) -> int:
        await asyncio.sleep(1.0)
        return number

    assert not asyncio.iscoroutinefunction(inner)
    assert inner(4) == 4


@pytest.mark.parametrize("value", [1, 2])
@virtual_time
async def test_fixtures_and_parameters_reach_a_decorated_test(value: int, tmp_path_factory: object) -> None:
    assert value in (1, 2)
    assert tmp_path_factory is not None


def test_a_deadlock_names_who_waits_where() -> None:
    async def waits_for_the_event() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait(), name="the forgotten one")

    with pytest.raises(VirtualTimeError, match="deadlock") as caught:
        run_virtual(waits_for_the_event)
    assert "the forgotten one" in caught.value.message
    assert "waits_for_the_event" in caught.value.message
    assert "locks.py" in caught.value.message


def test_a_timer_that_never_comes_is_no_timer() -> None:
    async def waits() -> None:
        asyncio.get_running_loop().call_at(float("inf"), print)
        await asyncio.Event().wait()

    with pytest.raises(VirtualTimeError, match="deadlock at 0 s"):
        run_virtual(waits)


def test_the_first_error_comes_out_even_if_somebody_resists() -> None:
    async def resists() -> None:
        with anyio.CancelScope(shield=True):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(resists(), name="stubborn")
        await asyncio.sleep(7.0)
        await task

    with pytest.raises(VirtualTimeError, match="deadlock at 7 s"):
        run_virtual(main)


async def test_a_run_inside_a_run_is_refused() -> None:
    async def nothing() -> None:
        return None

    with pytest.raises(VirtualTimeError, match="event loop is running"):
        run_virtual(nothing)


def test_a_run_that_only_timers_keep_alive_is_given_up() -> None:
    async def ticks_for_ever() -> None:
        loop, never = asyncio.get_running_loop(), asyncio.Event()

        def tick() -> None:
            loop.call_later(3600.0, tick)

        tick()
        await never.wait()

    with pytest.raises(VirtualTimeError, match=r"the limit is 864000 s.*ticks_for_ever"):
        run_virtual(ticks_for_ever, limit=10 * DAY)


def test_spinning_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsm_sdk.testing.virtual.TURNS", 1_000)

    async def spins() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(VirtualTimeError, match=r"1000 turns at 0 s .*spins"):
        run_virtual(spins)


def test_tasks_left_behind_are_named() -> None:
    async def leaves() -> None:
        left.append(asyncio.create_task(asyncio.sleep(10.0), name="left one"))

    left: list[asyncio.Task[None]] = []
    with pytest.raises(LeakError, match="left one"):
        run_virtual(leaves)
    run_virtual(leaves, strict=False)
    assert all(task.cancelled() for task in left)


def _thread() -> None:
    threading.Thread(target=print).start()


def _socket() -> None:
    socket.socket().close()


def _look_up() -> None:
    socket.getaddrinfo("localhost", 80)


def _subprocess() -> None:
    subprocess.run(["true"], check=True)


@pytest.mark.parametrize(
    ("act", "what"),
    [(_thread, "thread"), (_socket, "socket"), (_look_up, "look-up"), (_subprocess, "subprocess")],
)
def test_what_would_make_time_run_away_is_refused(act: Callable[[], None], what: str) -> None:
    async def main() -> None:
        act()

    with pytest.raises(VirtualTimeError, match=what) as caught:
        run_virtual(main)
    assert "inproc://" in caught.value.hint


def test_worker_threads_are_refused() -> None:
    async def by_anyio() -> None:
        await anyio.to_thread.run_sync(time.time)

    async def by_asyncio() -> None:
        await asyncio.to_thread(time.time)

    for main in (by_anyio, by_asyncio):
        with pytest.raises(VirtualTimeError, match="thread"):
            run_virtual(main)


def test_descriptors_of_others_are_refused() -> None:
    ours, theirs = socket.socketpair()

    async def main() -> None:
        asyncio.get_running_loop().add_reader(ours, lambda: None)

    with ours, theirs, pytest.raises(VirtualTimeError, match="file descriptor"):
        run_virtual(main)


def test_calls_from_other_threads_are_refused() -> None:
    go = threading.Event()
    errors: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    def foreign() -> None:
        go.wait(10.0)
        try:
            loops[0].call_soon_threadsafe(print)
        except VirtualTimeError as error:
            errors.append(error)

    thread = threading.Thread(target=foreign)
    thread.start()

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        go.set()
        # Blocks the loop on purpose: only a real thread can end this wait.
        thread.join()
        await asyncio.sleep(1.0)

    with pytest.raises(VirtualTimeError, match="another thread"):
        run_virtual(main)
    assert len(errors) == 1


def test_what_others_did_to_threads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    original = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(thread.name)
        original(thread)

    async def nothing() -> None:
        return None

    monkeypatch.setattr(threading.Thread, "start", noted)
    run_virtual(nothing)
    thread = threading.Thread(target=lambda: None, name="after")
    thread.start()
    thread.join()
    assert started == ["after"]


def test_outside_a_run_everything_works_again() -> None:
    async def nothing() -> None:
        return None

    run_virtual(nothing)
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    with socket.socket():
        assert not thread.is_alive()


async def test_in_real_time_there_is_no_virtual_clock() -> None:
    with pytest.raises(VirtualTimeError, match="no virtual time"):
        VirtualClock()
    assert isinstance(current_clock(), SystemClock)


@settings(max_examples=50)
@given(delays=st.lists(st.floats(0.0, 40 * DAY), max_size=20), step=st.floats(1e-9, 1e9))
def test_timers_run_in_order_and_never_early(delays: list[float], step: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(step)
        ran: list[tuple[float, float]] = []

        def note(at: float) -> None:
            ran.append((at, loop.time()))

        for delay in delays:
            at = loop.time() + delay
            loop.call_at(at, note, at)
        await asyncio.sleep(41 * DAY)
        assert [at for at, _ in ran] == sorted(at for at, _ in ran)
        assert len(ran) == len(delays)
        assert all(now == pytest.approx(at) for at, now in ran)

    run_virtual(main, limit=float("inf"))
