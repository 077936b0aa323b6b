# SPDX-License-Identifier: Apache-2.0
"""`drive`, `rig` and the doubles of the connection family."""

from __future__ import annotations

import anyio
import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Cause, Element, Next, Slot
from nsm_sdk.errors import ChainOrderError, DeadlineExceeded, ProgrammingError, Unavailable
from nsm_sdk.testing import Answer, FailTimes, Lose, Park, Probe, drive, rig, sample_request, virtual_time


class Again(Element):
    """Tries `attempts` times."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        for _ in range(self.attempts - 1):
            try:
                return await next.request(call, request)
            except Unavailable:
                pass
        return await next.request(call, request)


class Keeps(Element):
    """Keeps a slot, a timer and a task until the close."""

    def __init__(self, *, forgets: bool = False) -> None:
        self.forgets = forgets
        self._kept = Slot[int]("kept")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self._kept.set(call, 1)
        call.runtime.after(60.0, lambda: None)
        call.runtime.spawn(anyio.sleep_forever, "keeper")
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if not self.forgets:
            self._kept.pop(call)
        await next.close(call, conn)


async def test_an_error_comes_out_and_the_double_has_counted() -> None:
    below = FailTimes(3, Unavailable("gone"))
    with pytest.raises(Unavailable):
        await drive(Again(attempts=3), below)
    assert below.seen.requests == 3


async def test_the_record_has_answer_and_calls() -> None:
    below = FailTimes(2, lambda: Unavailable("gone"))
    done = await drive(Again(attempts=3), below)
    assert done.connection == sample_request().connection
    assert done.error is None
    assert [type(passed.error) for passed in below.seen.of("request")] == [Unavailable, Unavailable, type(None)]
    assert done.seen.verbs == ["request", "close"]
    assert done.seen.calls[0].cause is Cause.CALL
    assert not done.left


async def test_a_caught_error_is_in_the_record() -> None:
    error = Unavailable("gone")
    done = await drive(FailTimes(1, error), catch=Unavailable)
    assert done.error is error
    assert done.connection is None
    assert done.seen.requests == 0


async def test_what_is_left_is_named() -> None:
    done = await drive(Keeps(forgets=True))
    assert done.held.slots == ["kept"]
    assert done.left.slots == ["kept"]
    assert done.left.tasks == ["keeper"]
    assert done.left.timers == 2, "its own, and the one with which Begin closes again"
    assert done.left


async def test_slots_that_are_given_back_are_not_left() -> None:
    done = await drive(Keeps())
    assert done.held.slots == ["kept"]
    assert done.left.slots == []


async def test_a_failed_first_request_is_undone_below_begin() -> None:
    done = await drive(Keeps(), FailTimes(1, Unavailable("gone")), catch=Unavailable)
    assert done.left.slots == []
    assert done.seen.verbs == ["close"]
    assert done.seen.calls[0].cause is Cause.ROLLBACK


async def test_messages_of_the_test_are_not_touched() -> None:
    class Rename(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            request.connection.network_service = "renamed"
            return await next.request(call, request)

    mine = sample_request()
    done = await drive(Rename(), request=mine)
    assert mine == sample_request()
    assert done.connection is not None
    assert done.connection.network_service == "renamed"


async def test_lose_does_the_work_and_loses_the_answer() -> None:
    lose = Lose()
    below = Probe()
    done = await drive(lose, below, catch=Unavailable)
    assert isinstance(done.error, Unavailable)
    assert below.seen.requests == 1
    assert below.seen.calls[0].error is None


async def test_lose_and_fail_in_close() -> None:
    below = Probe()
    done = await drive(Lose(verb="close"), below, catch=Unavailable)
    assert isinstance(done.error, Unavailable)
    assert below.seen.verbs == ["request", "close"]
    below = Probe()
    await drive(FailTimes(1, Unavailable("no"), verb="close"), below, catch=Unavailable)
    assert below.seen.verbs == ["request"]


@pytest.mark.parametrize("late", [False, True])
async def test_park_holds_before_or_after_the_work(late: bool) -> None:
    park, below = Park(late=late), Probe()
    async with rig(park, below) as bench, anyio.create_task_group() as tasks:
        tasks.start_soon(bench.request)
        await park.reached()
        assert park.parked == 1
        assert below.seen.requests == int(late)
        park.release()
    assert park.parked == 0
    assert below.seen.requests == 1


async def test_a_cancelled_parked_call_leaves() -> None:
    park = Park()
    async with rig(park) as bench, anyio.create_task_group() as tasks:
        tasks.start_soon(bench.request)
        await park.reached()
        tasks.cancel_scope.cancel()
    assert park.parked == 0
    assert isinstance(park.seen.calls[0].error, BaseException)


@virtual_time
async def test_a_timeout_ends_as_at_an_edge() -> None:
    done = await drive(Park(), timeout=10.0, catch=DeadlineExceeded)
    assert isinstance(done.error, DeadlineExceeded)
    assert done.error.hop == "rig"
    assert done.runtime.clock.now() == pytest.approx(9.95)


async def test_answer_ends_the_chain() -> None:
    done = await drive(Answer(lambda request: Connection(id="other")))
    assert done.connection == Connection(id="other")
    with pytest.raises(ChainOrderError):
        await drive(Answer(), Probe())


async def test_call_fields_reach_the_elements() -> None:
    done = await drive(Probe(), url="inproc://x", metadata={"a": "b"})
    assert done.seen.calls[0].url == "inproc://x"
    assert done.seen.calls[0].metadata == {"a": "b"}


async def test_a_verb_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ProgrammingError, match="find"):
        Park(verb="find")
