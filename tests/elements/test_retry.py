# SPDX-License-Identifier: Apache-2.0
"""Trying again.

Does:  how often, at what pauses, with what input, when it stops, and what is closed between tries.
Place: nsm_sdk.elements.retry.
State: none.
"""

from __future__ import annotations

import anyio
import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.retry import Retry
from nsm_sdk.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NoCandidate,
    NotFound,
    NsmError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from nsm_sdk.testing import FailTimes, Park, Probe, VirtualClock, drive, rig, sample_request, virtual_time


def gone() -> NsmError:
    return Unavailable("gone")


class Scribble(Element):
    """Changes what it is given, as elements do."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        request.connection.labels["tries"] = request.connection.labels.get("tries", "") + "x"
        return await next.request(call, request)


@virtual_time
async def test_tries_until_it_succeeds_at_growing_pauses() -> None:
    fails = FailTimes(5, gone)
    driven = await drive(Retry(jitter=False, longest=1.0), fails)
    assert fails.seen.requests == 6
    assert VirtualClock().now() == pytest.approx(0.2 + 0.4 + 0.8 + 1 + 1)
    assert driven.connection is not None
    assert not driven.left


@virtual_time
async def test_each_try_gets_a_copy_of_its_own() -> None:
    asked = sample_request()
    fails = FailTimes(2, gone)
    driven = await drive(Retry(), Scribble(), fails, request=asked)
    assert [passed.connection.labels["tries"] for passed in fails.seen.of("request")] == ["x"] * 3
    assert driven.connection is not None
    assert "tries" not in asked.connection.labels


@pytest.mark.parametrize("kind", [InvalidRequest, PermissionDenied, Unauthenticated, Unimplemented])
async def test_stops_where_trying_again_cannot_help(kind: type[NsmError]) -> None:
    fails = FailTimes(9, kind("no"))
    driven = await drive(Retry(), fails, catch=kind)
    assert isinstance(driven.error, kind)
    assert fails.seen.requests == 1


async def test_a_defect_is_not_tried_again() -> None:
    fails = FailTimes(9, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await drive(Retry(), fails)
    assert fails.seen.requests == 1


@virtual_time
async def test_stops_after_so_many_attempts_with_the_last_error() -> None:
    fails = FailTimes(9, lambda: NotFound(f"try {fails.seen.requests}"))
    with pytest.raises(NotFound, match="try 3") as caught:
        await drive(Retry(attempts=3), fails)
    assert caught.value.__notes__ == ["after 3 tries"]


@virtual_time
async def test_stops_when_the_callers_time_does_not_suffice_for_another_pause() -> None:
    fails = FailTimes(99, gone)
    with pytest.raises(Unavailable):
        await drive(Retry(jitter=False), fails, timeout=1.0)
    assert fails.seen.requests == 3
    assert VirtualClock().now() < 1


@virtual_time
async def test_each_try_has_its_own_time() -> None:
    park = Park()
    with pytest.raises(DeadlineExceeded, match="within 2 s"):
        await drive(Retry(attempts=3, per_try=2.0, jitter=False), park)
    assert park.seen.requests == 3
    assert VirtualClock().now() == pytest.approx(3 * 2 + 0.2 + 0.4)


@virtual_time
async def test_above_begin_each_failed_try_is_undone_and_a_close_may_come_between() -> None:
    probe, fails = Probe(), FailTimes(99, gone)
    async with rig(Retry(jitter=False, pause=5.0), Begin(), probe, fails) as bench:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_expect_unavailable, bench.request(timeout=20.0))
            await VirtualClock().advance(1)
            with anyio.fail_after(1):
                await bench.close()
        assert probe.seen.verbs[:2] == ["request", "close"]
        assert not await bench.left()


@virtual_time
async def test_below_begin_a_first_request_is_closed_before_the_next_try() -> None:
    probe, fails = Probe(), FailTimes(2, gone)
    async with rig(Begin(), Retry(jitter=False), probe, fails) as bench:
        await bench.request()
        assert probe.seen.verbs == ["request", "close", "request", "close", "request"]
        await bench.close()
        assert not await bench.left()


@virtual_time
async def test_below_begin_a_refresh_that_fails_closes_nothing() -> None:
    probe, fails = Probe(), FailTimes(0, gone)
    async with rig(Begin(), Retry(jitter=False), probe, fails) as bench:
        await bench.request()
        fails.times = 3
        await bench.request()
        assert probe.seen.verbs == ["request"] * 4
        await bench.close()
        assert not await bench.left()


@virtual_time
async def test_a_close_between_tries_that_fails_does_not_end_the_tries() -> None:
    failing_close = FailTimes(1, gone, verb="close")
    async with rig(Begin(), Retry(jitter=False), failing_close, FailTimes(1, gone)) as bench:
        await bench.request()
        await bench.close()
        assert not await bench.left()


class Choose(Element):
    """Chooses a next hop, unless one has been chosen."""

    def __init__(self) -> None:
        self.came: list[str] = []

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.came.append(call.url)
        call.url = f"inproc://{len(self.came)}"
        return await next.request(call, request)


@virtual_time
async def test_each_try_chooses_its_next_hop_anew() -> None:
    choose = Choose()
    await drive(Retry(), choose, FailTimes(2, gone))
    assert choose.came == ["", "", ""]


async def _expect_unavailable(request: object) -> None:
    with pytest.raises(Unavailable):
        await request  # type: ignore[misc]


@virtual_time
async def test_the_caller_reads_why_it_failed_and_not_only_that_its_time_is_over() -> None:
    class OnceThenSilence(Element):
        def __init__(self) -> None:
            self.tries = 0

        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            self.tries += 1
            if self.tries > 1:
                await anyio.sleep_forever()
            raise NoCandidate("nobody offers it")

    with pytest.raises(NoCandidate, match="nobody offers it") as caught:
        await drive(Retry(), OnceThenSilence(), timeout=5)
    assert caught.value.__notes__ == ["after 2 tries"]
