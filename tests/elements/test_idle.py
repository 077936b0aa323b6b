# SPDX-License-Identifier: Apache-2.0
"""Leaving when nobody needs it.

Does:  when the idle time counts and when not, that it is told once, and that it ends with the role.
Place: nsm_sdk.elements.on_idle.
State: none.
"""

from __future__ import annotations

import pytest

from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.idle import OnIdle
from nsm_sdk.errors import Unavailable
from nsm_sdk.testing import FailTimes, VirtualClock, rig, sample_request, virtual_time


class Told:
    """Counts notices."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def _pass(seconds: float) -> None:
    await VirtualClock().advance(seconds)


@virtual_time
async def test_told_once_and_refused_afterwards() -> None:
    told = Told()
    async with rig(Begin(), OnIdle(10, told)) as bench:
        await _pass(9.9)
        assert told.times == 0
        await _pass(100)
        assert told.times == 1
        with pytest.raises(Unavailable, match="idle"):
            await bench.request()
        await bench.close()
        assert bench.seen.requests == 0
        assert not await bench.left()


@virtual_time
async def test_connections_keep_it_and_the_last_close_starts_the_whole_time_anew() -> None:
    told = Told()
    async with rig(Begin(), OnIdle(10, told)) as bench:
        await _pass(5)
        one = await bench.request(sample_request("one"))
        two = await bench.request(sample_request("two"))
        await bench.request(sample_request("two"))
        await _pass(100)
        await bench.close(one)
        await bench.close(one)
        await _pass(100)
        assert told.times == 0
        await bench.close(two)
        await _pass(9.9)
        assert told.times == 0
        await _pass(0.2)
        assert told.times == 1


@virtual_time
async def test_a_new_request_that_fails_does_not_keep_it_and_a_refresh_that_fails_does() -> None:
    told, fails = Told(), FailTimes(0, lambda: Unavailable("below"))
    async with rig(Begin(), OnIdle(10, told), fails) as bench:
        conn = await bench.request(sample_request("one"))
        fails.times = 10
        with pytest.raises(Unavailable):
            await bench.request(sample_request("one"))
        await _pass(100)
        assert told.times == 0
        await bench.close(conn)
        with pytest.raises(Unavailable):
            await bench.request(sample_request("two"))
        await _pass(10.1)
        assert told.times == 1


@virtual_time
async def test_a_close_of_an_unknown_connection_does_not_matter() -> None:
    told = Told()
    async with rig(Begin(), OnIdle(10, told)) as bench:
        await bench.request(sample_request("one"))
        await bench.close(sample_request("other").connection)
        await _pass(100)
        assert told.times == 0
        await bench.close()


@virtual_time
async def test_zero_is_never() -> None:
    told = Told()
    async with rig(Begin(), OnIdle(0, told)) as bench:
        await _pass(1000)
        await bench.request()
        await bench.close()
        await _pass(1000)
        assert not (await bench.left()).timers
    assert told.times == 0


@virtual_time
async def test_nothing_is_told_after_the_role_has_ended_and_a_new_start_counts_anew() -> None:
    told = Told()
    element = OnIdle(10, told)
    for _ in range(2):
        async with rig(Begin(), element) as bench:
            await _pass(5)
            await bench.request()
            await bench.close()
        await _pass(100)
    assert told.times == 0


@virtual_time
async def test_a_connection_of_an_earlier_serving_counts_for_nothing() -> None:
    told = Told()
    begin, element = Begin(), OnIdle(10, told)
    async with rig(begin, element) as bench:
        await bench.request()
    async with rig(begin, element) as bench:
        await bench.close(sample_request().connection)
        assert (await bench.left()).timers == 1
        await _pass(10.1)
        assert told.times == 1
