# SPDX-License-Identifier: Apache-2.0
"""The keyed lock: first in first out, hand-over, cancellation, and no memory for keys at rest."""

from __future__ import annotations

import asyncio

import anyio
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from nsm_sdk.core import KeyedLock
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
