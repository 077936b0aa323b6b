# SPDX-License-Identifier: Apache-2.0
"""Locks, mailboxes and pauses: order of arrival, hand-over, cancellation, and nothing kept for what is at rest."""

from __future__ import annotations

import asyncio
import random

import anyio
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from nsm_sdk.core import Backoff, KeyedLock, Mailbox
from nsm_sdk.testing import run_virtual, settled, virtual_time


@virtual_time
async def test_waiters_go_in_order_of_arrival() -> None:
    lock, got = KeyedLock[str](), list[int]()

    async def one(number: int) -> None:
        await lock.acquire("key")
        got.append(number)
        await asyncio.sleep(10.0 - number)
        lock.release("key")

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(one, number)
            await settled()
    assert got == list(range(6))
    assert len(lock) == 0


@virtual_time
async def test_keys_do_not_wait_for_each_other() -> None:
    lock = KeyedLock[str]()
    await lock.acquire("one")
    with anyio.fail_after(1.0):
        await lock.acquire("other")
    assert lock.locked("one")
    assert len(lock) == 2
    lock.release("one")
    assert not lock.locked("one")
    lock.release("other")
    assert len(lock) == 0


@virtual_time
async def test_nobody_overtakes_a_waiter() -> None:
    lock, got = KeyedLock[str](), list[str]()

    async def waiter() -> None:
        await lock.acquire("key")
        got.append("waiter")
        lock.release("key")

    await lock.acquire("key")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter)
        await settled()
        lock.release("key")
        # The waiter has not run yet; whoever comes now is behind it.
        await lock.acquire("key")
        got.append("late")
        lock.release("key")
    assert got == ["waiter", "late"]


@virtual_time
async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    lock, got = KeyedLock[str](), list[str]()

    async def waiter(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await lock.acquire("key")
            got.append(name)
            lock.release("key")

    scopes = [anyio.CancelScope() for _ in range(3)]
    await lock.acquire("key")
    async with anyio.create_task_group() as tasks:
        for name, scope in zip("abc", scopes, strict=True):
            tasks.start_soon(waiter, name, scope)
            await settled()
        scopes[0].cancel()
        scopes[1].cancel()
        await settled()
        assert len(lock) == 1
        lock.release("key")
    assert got == ["c"]
    assert len(lock) == 0


@virtual_time
async def test_cancelled_in_the_moment_of_its_turn_it_passes_the_turn_on() -> None:
    lock, got = KeyedLock[str](), list[str]()

    async def waiter(name: str) -> None:
        await lock.acquire("key")
        got.append(name)
        lock.release("key")

    await lock.acquire("key")
    first = asyncio.create_task(waiter("first"))
    second = asyncio.create_task(waiter("second"))
    await settled()
    lock.release("key")
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert got == ["second"]
    assert len(lock) == 0


@virtual_time
async def test_a_lock_may_be_given_back_by_another_task() -> None:
    lock = KeyedLock[str]()
    await lock.acquire("key")

    async def finish() -> None:
        lock.release("key")

    await asyncio.create_task(finish())
    assert len(lock) == 0


@virtual_time
async def test_a_waiter_keeps_its_own_deadline() -> None:
    lock = KeyedLock[str]()
    await lock.acquire("key")
    with pytest.raises(TimeoutError):
        with anyio.fail_after(5.0):
            await lock.acquire("key")
    lock.release("key")
    assert len(lock) == 0


async def test_giving_back_what_nobody_holds_is_an_error() -> None:
    lock = KeyedLock[str]()
    with pytest.raises(KeyError):
        lock.release("key")


JOB = st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 8)))


@settings(max_examples=60, deadline=None)
@given(jobs=st.lists(JOB, max_size=25))
def test_never_two_at_a_time_always_in_order_and_empty_at_the_end(
    jobs: list[tuple[str, int, int, int | None]],
) -> None:
    async def main() -> None:
        lock, inside = KeyedLock[str](), set[str]()
        arrived: dict[str, list[int]] = {key: [] for key in "abc"}
        entered: dict[str, list[int]] = {key: [] for key in "abc"}

        async def job(number: int, key: str, arrives: int, takes: int, patience: int | None) -> None:
            await asyncio.sleep(arrives)
            arrived[key].append(number)
            with anyio.move_on_after(float("inf") if patience is None else patience):
                await lock.acquire(key)
                try:
                    assert key not in inside
                    inside.add(key)
                    entered[key].append(number)
                    await asyncio.sleep(takes)
                finally:
                    inside.discard(key)
                    lock.release(key)

        async with anyio.create_task_group() as tasks:
            for number, (key, arrives, takes, patience) in enumerate(jobs):
                tasks.start_soon(job, number, key, arrives, takes, patience)
        assert len(lock) == 0
        for key in "abc":
            assert entered[key] == [number for number in arrived[key] if number in entered[key]]

    run_virtual(main)


@given(
    first=st.floats(0.001, 60.0),
    last=st.floats(0.001, 3600.0),
    failures=st.one_of(st.integers(0, 64), st.sampled_from([1_023, 1_024, 10**6, 10**30])),
    seed=st.integers(0, 2**32),
)
def test_pauses_grow_to_a_bound_however_often_it_failed(first: float, last: float, failures: int, seed: int) -> None:
    backoff = Backoff(first, last, 0.75, 1.25)
    plain = backoff.pause(failures)
    assert plain == min(first, last) if failures == 0 else plain >= backoff.pause(failures - 1)
    assert 0 < plain <= last
    assert 0.75 * plain <= backoff.pause(failures, random.Random(seed)) <= 1.25 * plain


async def read_all(box: Mailbox[int], got: list[int]) -> None:
    got.extend([item async for item in box])


@given(limit=st.integers(0, 4), items=st.lists(st.integers(), max_size=20), late=st.booleans())
def test_a_mailbox_gives_everything_in_order_then_ends(limit: int, items: list[int], late: bool) -> None:
    async def scenario() -> list[int]:
        box, got = Mailbox[int](limit), list[int]()

        async def write() -> None:
            if late:
                await asyncio.sleep(1.0)
            for item in items:
                await box.put(item)
                assert not limit or len(box) <= limit
            box.end()
            await box.put(-1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_all, box, got)
            tasks.start_soon(write)
        assert box.ended
        assert not box.dropped
        return got

    assert run_virtual(scenario) == items


@virtual_time
async def test_a_full_mailbox_drops_the_oldest_of_what_is_posted_and_counts() -> None:
    box, got = Mailbox[int](3), list[int]()
    for item in range(10):
        box.post(item)
    assert (len(box), box.dropped, box.full) == (3, 7, True)
    box.end()
    await read_all(box, got)
    assert got == [7, 8, 9]


@virtual_time
async def test_the_error_of_an_end_comes_after_what_waited_and_the_first_end_counts() -> None:
    box = Mailbox[int]()
    box.post(1)
    box.end(ValueError("first"))
    box.end(ValueError("second"))
    assert await anext(box) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="first"):
            await anext(box)


@virtual_time
async def test_a_reader_that_gave_up_takes_nothing_along() -> None:
    box = Mailbox[int]()
    with anyio.move_on_after(1.0) as scope:
        await anext(box)
    assert scope.cancelled_caught
    box.post(5)
    assert await anext(box) == 5


@virtual_time
async def test_a_writer_that_gave_up_leaves_its_place_to_the_next() -> None:
    box = Mailbox[int](1)
    await box.put(0)
    first, second = (asyncio.create_task(box.put(item)) for item in (1, 2))
    await settled()
    # The room comes in the very moment in which the first writer is cancelled.
    assert await anext(box) == 0
    first.cancel()
    await settled()
    assert first.cancelled()
    assert second.done()
    assert await anext(box) == 2
    third, fourth = (asyncio.create_task(box.put(item)) for item in (3, 4))
    fourth.cancel()
    await settled()
    assert fourth.cancelled()
    assert await anext(box) == 3
    await third


@virtual_time
async def test_the_end_lets_all_writers_go() -> None:
    box = Mailbox[int](1)
    await box.put(0)
    async with anyio.create_task_group() as tasks:
        for item in range(3):
            tasks.start_soon(box.put, item)
        await settled()
        box.end()
    assert len(box) == 1
