# SPDX-License-Identifier: Apache-2.0
"""So many Requests at once, and what those beyond that are told.

Does:  fills a hop, reads what it says to more, over every transport, and looks that elements which try again obey.
Place: nsm_sdk.elements.load_limit, nsm_sdk.errors, nsm_sdk.transport.status.
State: none.
"""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Request, set_expiry
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.elements import Begin, LoadLimit, Refresh, Retry, UpdatePath
from nsm_sdk.elements.load_limit import LONGEST_WAIT
from nsm_sdk.errors import Exhausted, NsmError, Unavailable, pushback
from nsm_sdk.testing import VirtualClock, rig, sample_request, virtual_time
from nsm_sdk.transport.status import MOST_PUSHBACK, decode, encode


class Gate(Element):
    """Holds Requests until it is opened."""

    def __init__(self) -> None:
        self.open = anyio.Event()
        self.closes = 0

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        await self.open.wait()
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self.closes += 1
        await next.close(call, conn)


class Fails(Element):
    """Raises these errors, one each, then lets pass; notes when it was asked."""

    def __init__(self, *errors: NsmError) -> None:
        self.errors = list(errors)
        self.requests: list[float] = []
        self.closes: list[float] = []

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.requests.append(call.runtime.clock.now())
        if self.errors:
            raise self.errors.pop(0)
        return await next.request(call, request)


@virtual_time
async def test_one_request_too_many_is_told_when_to_come_again() -> None:
    gate, limit = Gate(), LoadLimit(3)
    async with rig(limit, gate) as bench:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(bench.request, sample_request(f"c{number}"))
            await VirtualClock().advance(0.1)
            assert limit.running == 3
            waits = []
            for number in range(200):
                with pytest.raises(Unavailable, match="overrun: 3 Requests") as raised:
                    await bench.request(sample_request(f"d{number}"))
                assert raised.value.hint
                waits.append(pushback(raised.value))
            await bench.close(sample_request("d0").connection)
            assert gate.closes == 1
            gate.open.set()
        assert limit.running == 0
        # Each has a moment of its own, and none is sent away for long.
        assert len(set(waits)) == len(waits)
        assert min(waits) > 0
        assert max(waits) <= LONGEST_WAIT
        await bench.request(sample_request("e"))


@virtual_time
async def test_connections_that_live_are_refreshed_however_many_others_come() -> None:
    gate, begin = Gate(), Begin()
    limit = LoadLimit(2, lives=begin.lives)
    async with rig(UpdatePath("hop"), limit, begin, gate) as bench:
        gate.open.set()
        living = await bench.request(sample_request("living"))
        gate.open = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(bench.request, sample_request(f"c{number}"))
            await VirtualClock().advance(0.1)
            with pytest.raises(Unavailable, match="overrun"):
                await bench.request(sample_request("late"))
            refreshed = anyio.Event()

            async def refresh() -> None:
                await bench.request(Request(connection=living))
                refreshed.set()

            tasks.start_soon(refresh)
            await VirtualClock().advance(0.1)
            assert limit.running == 2
            gate.open.set()
        assert refreshed.is_set()


@virtual_time
async def test_a_request_that_fails_or_is_cancelled_makes_room() -> None:
    limit = LoadLimit(1)
    async with rig(limit, Fails(Exhausted("no"))) as bench:
        with pytest.raises(Exhausted):
            await bench.request()
        await bench.request()
    gate = Gate()
    async with rig(limit, gate) as bench:
        with anyio.move_on_after(1):
            await bench.request()
        assert limit.running == 0


@virtual_time
async def test_retry_waits_at_least_that_long() -> None:
    fails = Fails(Unavailable("overrun", retry_after=7.0), Unavailable("overrun", retry_after=0.0))
    async with rig(Retry(pause=0.1, longest=0.2), fails) as bench:
        began = VirtualClock().now()
        await bench.request()
        first, second, third = fails.requests
        assert first == began
        assert second >= began + 7.0
        assert third <= second + 0.3


@virtual_time
async def test_retry_says_so_at_once_where_the_wait_is_longer_than_the_caller_has() -> None:
    async with rig(Retry(pause=0.1), Fails(Unavailable("overrun", retry_after=50.0))) as bench:
        began = VirtualClock().now()
        with pytest.raises(Unavailable, match="overrun"):
            await bench.request(timeout=10)
        assert VirtualClock().now() == began


@virtual_time
async def test_a_refresh_is_put_off_for_as_long_as_the_peer_says() -> None:
    fails = Fails()
    async with rig(UpdatePath("nsc"), Begin(), Refresh(), Life(100.0), fails) as bench:
        await bench.request()
        fails.errors = [Unavailable("overrun", retry_after=20.0)]
        await VirtualClock().advance(60)
        first, second, third = fails.requests[:3]
        assert second > first
        assert third >= second + 20.0


class Life(Element):
    """Tokens that live so many seconds."""

    def __init__(self, life: float) -> None:
        self.life = life

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        for hop in request.connection.path.path_segments:
            set_expiry(hop, call.runtime.clock.wall() + self.life)
        return await next.request(call, request)


@given(st.floats(min_value=0, max_value=MOST_PUSHBACK))
def test_the_time_survives_the_wire_and_is_never_cut(seconds: float) -> None:
    failure = encode(Unavailable("overrun", retry_after=seconds), "hop")
    back = decode(failure.status, failure.text, failure.trail, "peer", failure.pushback)
    assert seconds <= pushback(back) <= seconds + 0.001


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("0", 0.0),
        ("1500", 1.5),
        ("99999999", MOST_PUSHBACK),
        ("9" * 5000, MOST_PUSHBACK),
        ("-1", MOST_PUSHBACK),
        ("soon", MOST_PUSHBACK),
        ("1e3", MOST_PUSHBACK),
    ],
)
def test_what_peers_may_send(text: str, seconds: float | None) -> None:
    assert decode(14, "overrun", b"", "peer", text).retry_after == seconds


def test_nothing_is_sent_where_nothing_is_asked() -> None:
    assert encode(Unavailable("away"), "hop").pushback == ""
