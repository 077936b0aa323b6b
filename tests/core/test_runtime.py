# SPDX-License-Identifier: Apache-2.0
"""What a role runs on: calls of peers, background tasks, draining."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Chain, Element, Next, Role, Running, Runtime, Service
from nsm_sdk.errors import Cancelled, DeadlineExceeded, Internal, NotFound, NsmError, Unavailable
from nsm_sdk.testing import Park, VirtualClock, sample_request, settled, virtual_time


@asynccontextmanager
async def served(*elements: Element) -> AsyncGenerator[Running, None]:
    async with Role("hop", connection=Chain("hop", *elements)).serving(clock=VirtualClock()) as running:
        yield running


def request(running: Running, seconds: float = math.inf) -> Awaitable[Connection]:
    """One request as an edge makes it."""

    async def run(deadline: float) -> Connection:
        assert running.bound.connection is not None
        return await running.bound.connection.request(Call(running.runtime, deadline=deadline), sample_request())

    return running.runtime.serve(run, seconds, "Request")


class Raises(Element):
    """Fails with what it is given."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        self._make = make

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        raise self._make()


@virtual_time
async def test_an_answer_comes_back() -> None:
    async with served() as running:
        assert await request(running) == sample_request().connection
        assert running.runtime.calls == 0


@virtual_time
@pytest.mark.parametrize(("seconds", "ends"), [(10.0, 9.95), (0.1, 0.095), (0.0, 0.0)])
async def test_the_deadline_is_a_little_earlier_and_names_hop_and_element(seconds: float, ends: float) -> None:
    async with served(Park()) as running:
        with pytest.raises(DeadlineExceeded) as caught:
            await request(running, seconds)
        assert running.runtime.clock.now() == pytest.approx(ends)
        assert (caught.value.hop, caught.value.element) == ("hop", "Park.request")
        assert "Request: the caller's time ran out" in caught.value.message
        assert caught.value.hint
        assert running.runtime.calls == 0
        assert len(running.runtime.timers) == 0


@virtual_time
async def test_elements_read_the_deadline_from_the_call() -> None:
    park = Park()
    async with served(park) as running, anyio.create_task_group() as tasks:

        async def ask() -> None:
            await request(running, 20.0)

        tasks.start_soon(ask)
        await park.reached()
        assert park.seen.calls[0].deadline == pytest.approx(19.95)
        park.release()


@virtual_time
async def test_a_native_cancellation_of_the_waiter_reaches_the_element_and_its_cleanup_goes_on() -> None:
    cleaned: list[float] = []

    class Cleans(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1.0)
                    cleaned.append(call.runtime.clock.now())
            raise AssertionError

    async with served(Cleans()) as running:
        waiter = asyncio.ensure_future(request(running, 60.0))
        await asyncio.sleep(5.0)
        waiter.cancel()
        await settled()
        assert waiter.cancelled()
        assert running.runtime.calls == 1
        await asyncio.sleep(2.0)
        assert cleaned == [6.0]
        assert running.runtime.calls == 0


@virtual_time
async def test_a_cancelled_scope_round_the_waiter_does_the_same() -> None:
    park = Park()
    async with served(park) as running:
        with anyio.move_on_after(5.0) as scope:
            await request(running, 60.0)
        assert scope.cancelled_caught
        await settled()
        assert park.parked == 0
        assert running.runtime.calls == 0


@virtual_time
async def test_an_answer_that_crosses_with_the_cancellation_is_dropped_quietly() -> None:
    async with served(Park()) as running:
        park = running.find(Park)
        waiter = asyncio.ensure_future(request(running, 60.0))
        await park.reached()
        park.release()
        waiter.cancel()
        await settled()
        assert waiter.done()
        assert running.runtime.calls == 0


@virtual_time
async def test_errors_get_hop_and_element_once() -> None:
    error = NotFound("nothing")
    async with served(Raises(lambda: error)) as running:
        with pytest.raises(NotFound) as caught:
            await request(running)
    assert caught.value is error
    assert (error.hop, error.element) == ("hop", "Raises.request")
    there = NotFound("elsewhere", hop="other", element="Their.request")
    async with served(Raises(lambda: there)) as running:
        with pytest.raises(NotFound):
            await request(running)
    assert (there.hop, there.element) == ("other", "Their.request")


@virtual_time
async def test_other_errors_become_ours(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Raises(lambda: TimeoutError())) as running:
        with pytest.raises(DeadlineExceeded) as late:
            await request(running)
    assert isinstance(late.value.__cause__, TimeoutError)
    assert late.value.element == "Raises.request"
    with caplog.at_level(logging.CRITICAL, logger="nsm_sdk.core"):
        async with served(Raises(lambda: KeyError("x"))) as running:
            with pytest.raises(Internal, match="KeyError: 'x'") as caught:
                await request(running)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.element == "Raises.request"


@virtual_time
async def test_a_hop_that_is_killed_answers_what_runs_and_refuses_what_comes() -> None:
    park = Park()
    async with served(park) as running:
        waiter = asyncio.ensure_future(request(running, 60.0))
        just_sent = asyncio.ensure_future(request(running, 60.0))
        await park.reached()
        running.kill()
        await running.wait_ended()
        with pytest.raises(NsmError):
            await waiter
        with pytest.raises(NsmError):
            await just_sent
        with pytest.raises(Unavailable, match="shutting down"):
            await request(running, 60.0)
        assert running.runtime.calls == 0


@virtual_time
async def test_killed_in_the_turn_in_which_a_call_arrives() -> None:
    async with served(Park()) as running:
        waiter = asyncio.ensure_future(request(running, 60.0))
        running.kill()
        with anyio.fail_after(1.0), pytest.raises(NsmError):
            await waiter


@virtual_time
async def test_no_call_of_a_killed_hop_meets_a_service_that_has_stopped() -> None:
    met: list[bool] = []

    class Lamp(Service):
        lit = False

        async def start(self, runtime: Runtime) -> None:
            self.lit = True

        async def stop(self) -> None:
            self.lit = False

    class Looks(Element):
        def __init__(self) -> None:
            self.lamp = Lamp()

        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            for _ in range(5):
                met.append(self.lamp.lit)
                await anyio.lowlevel.checkpoint()
            return await next.request(call, request)

    for turns in range(4):
        async with served(Looks()) as running:
            waiter = asyncio.ensure_future(request(running, 60.0))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            running.kill()
            with pytest.raises(Unavailable):
                await waiter
    assert met
    assert all(met)


@virtual_time
async def test_draining_waits_for_calls_and_refuses_new_ones() -> None:
    park = Park()
    async with served(park) as running:
        waiter = asyncio.ensure_future(request(running, 60.0))
        await park.reached()
        assert running.runtime.accepting
        drained = asyncio.ensure_future(running.runtime.drain(10.0))
        await settled()
        assert not running.runtime.accepting
        with pytest.raises(Unavailable):
            await request(running)
        await asyncio.sleep(3.0)
        park.release()
        assert await drained
        assert (await waiter) == sample_request().connection
        assert running.runtime.clock.now() == pytest.approx(3.0)


@virtual_time
async def test_draining_gives_up() -> None:
    park = Park()
    async with served(park) as running:
        waiter = asyncio.ensure_future(request(running, 60.0))
        await park.reached()
        assert not await running.runtime.drain(5.0)
        assert running.runtime.clock.now() == pytest.approx(5.0)
        park.release()
        await waiter


@virtual_time
async def test_background_tasks_have_names_and_are_counted() -> None:
    async with served() as running:
        runtime = running.runtime
        scopes = [runtime.spawn(anyio.sleep_forever, "reader") for _ in range(2)]
        runtime.spawn(lambda: anyio.sleep(5.0), "short")
        assert runtime.running == {"reader": 2, "short": 1}
        await settled()
        assert "hop: reader" in {task.get_name() for task in asyncio.all_tasks()}
        scopes[0].cancel()
        await settled()
        assert runtime.running == {"reader": 1, "short": 1}
        await asyncio.sleep(6.0)
        assert runtime.running == {"reader": 1}
    assert runtime.running == {}


@virtual_time
async def test_a_task_that_is_cancelled_before_it_began_is_not_counted() -> None:
    ran: list[str] = []

    async def task() -> None:
        await anyio.lowlevel.checkpoint()
        ran.append("ran")

    async with served() as running:
        running.runtime.spawn(task, "early").cancel()
        await settled()
        assert running.runtime.running == {}
    assert ran == []


@virtual_time
async def test_a_background_task_that_fails_takes_nobody_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks() -> None:
        raise ZeroDivisionError("a defect")

    async with served() as running:
        with caplog.at_level(logging.ERROR, logger="nsm_sdk.core"):
            running.runtime.spawn(breaks, "broken")
            running.runtime.spawn(anyio.sleep_forever, "other")
            await settled()
        assert running.runtime.running == {"other": 1}
        assert await request(running) == sample_request().connection
    assert "background task 'broken' failed" in caplog.text
    assert "a defect" in caplog.text


@virtual_time
async def test_after_runs_once_and_can_be_cancelled() -> None:
    ran: list[float] = []
    async with served() as running:
        runtime: Runtime = running.runtime
        runtime.after(5.0, lambda: ran.append(runtime.clock.now()))
        cancelled = runtime.after(6.0, lambda: ran.append(-1.0))
        assert len(runtime.timers) == 2
        cancelled.cancel()
        await asyncio.sleep(10.0)
        assert ran == [5.0]
        runtime.after(5.0, lambda: ran.append(-2.0))
    await asyncio.sleep(10.0)
    assert ran == [5.0]


@virtual_time
async def test_a_thousand_calls_at_once() -> None:
    park = Park()
    async with served(park) as running, anyio.create_task_group() as tasks:

        async def ask() -> None:
            await request(running, 30.0)

        for _ in range(1000):
            tasks.start_soon(ask)
        await park.reached(1000)
        assert running.runtime.calls == 1000
        park.release()
    assert park.seen.requests == 1000


@virtual_time
async def test_the_caller_who_goes_away_is_told_apart_from_time_running_out() -> None:
    async with served(Park()) as running:
        result, scope = running.runtime.launch(_forever, 60.0, "Request")
        await settled()
        scope.cancel()
        with pytest.raises(Cancelled, match="cancelled by the caller"):
            await result


async def _forever(deadline: float) -> None:
    await anyio.sleep_forever()
