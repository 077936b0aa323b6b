# SPDX-License-Identifier: Apache-2.0
"""Begin: order, rollback, re-entry, closing to the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import pytest

from nsm_sdk.api import Connection, PathSegment, Request, State, set_expiry
from nsm_sdk.core import Call, Cause, Element, Next, Outcome, Slot
from nsm_sdk.elements import Begin
from nsm_sdk.errors import DeadlineExceeded, InvalidRequest, NsmError, Unavailable
from nsm_sdk.testing import FailTimes, Lose, Park, Probe, rig, settled, virtual_time
from nsm_sdk.testing.virtual import current_clock


def request_for(conn_id: str = "c1", *, lifetime: float = 0.0) -> Request:
    request = Request(connection=Connection(id=conn_id, network_service="ns"))
    request.connection.path.path_segments.append(PathSegment(name="rig", id=conn_id))
    clock = current_clock()
    if lifetime and clock is not None:
        set_expiry(request.connection.path.path_segments[0], clock.wall() + lifetime)
    return request


class Holder(Element):
    """Holds one thing per connection, and remembers whose events it may post."""

    def __init__(self) -> None:
        self._held: Slot[str] = Slot("held")
        self.calls: list[Call] = []
        self.released = 0

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.calls.append(call)
        if self._held.get(call) is None:
            self._held.set(call, request.connection.id)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if self._held.pop(call) is not None:
            self.released += 1
        await next.close(call, conn)


class Refuser(Element):
    """Fails in close before going on below, `times` times."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if self.times:
            self.times -= 1
            raise Unavailable("not now")
        await next.close(call, conn)


@dataclass
class Told:
    outcomes: list[tuple[Outcome, BaseException | None]] = field(default_factory=list)

    def __call__(self, outcome: Outcome, error: BaseException | None) -> None:
        self.outcomes.append((outcome, error))


@virtual_time
async def test_one_event_at_a_time_per_id_in_order_of_arrival() -> None:
    gate = Park()
    async with rig(Begin(), gate) as bench:
        order: list[str] = []

        async def ask(conn_id: str, name: str) -> None:
            await bench.request(request_for(conn_id))
            order.append(name)

        async with anyio.create_task_group() as tasks:
            gate.hold()
            tasks.start_soon(ask, "c1", "first")
            await settled()
            tasks.start_soon(ask, "c1", "second")
            await settled()
            tasks.start_soon(ask, "c2", "other")
            await settled()
            assert gate.parked == 2, "the second of c1 waits in Begin, c2 does not"
            gate.release()
        assert order.index("first") < order.index("second")
        await bench.close(request_for("c1").connection)
        await bench.close(request_for("c2").connection)


@virtual_time
async def test_an_id_is_needed() -> None:
    async with rig(Begin()) as bench:
        with pytest.raises(InvalidRequest, match="id"):
            await bench.request(Request(connection=Connection(network_service="ns")))


@virtual_time
async def test_a_failed_first_request_is_answered_at_once_and_undone() -> None:
    held, park = Holder(), Park(verb="close")
    begin = Begin()
    async with rig(begin, held, park, FailTimes(1, Unavailable("gone"))) as bench:
        with pytest.raises(Unavailable, match="gone"):
            await bench.request(request_for())
        await settled()
        assert park.parked == 1, "the rollback is under way although the caller has its answer"
        park.release()
        assert not await bench.left()
        assert held.released == 1
        assert len(begin) == 0


@virtual_time
async def test_a_retry_waits_for_the_rollback() -> None:
    park = Park(verb="close")
    begin = Begin()
    probe = Probe()
    async with rig(begin, Holder(), probe, park, FailTimes(1, Unavailable("gone"))) as bench:
        with pytest.raises(Unavailable):
            await bench.request(request_for())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.request, request_for())
            await settled()
            assert probe.seen.requests == 1
            park.release()
        assert probe.seen.requests == 2
        await bench.close(request_for().connection)
        assert len(begin) == 0


@virtual_time
async def test_a_cancelled_first_request_is_undone() -> None:
    held, begin = Holder(), Begin()
    async with rig(begin, held, Park(verb="request")) as bench:
        with anyio.move_on_after(1):
            await bench.request(request_for())
        assert not await bench.left()
        assert (held.released, len(begin)) == (1, 0)


@virtual_time
async def test_a_lost_answer_is_undone() -> None:
    held, begin = Holder(), Begin()
    async with rig(begin, held, Lose()) as bench:
        with pytest.raises(NsmError):
            await bench.request(request_for())
        assert not await bench.left()
        assert held.released == 1


@virtual_time
async def test_a_failed_refresh_undoes_nothing() -> None:
    held, begin = Holder(), Begin()
    async with rig(begin, held, Every(fail_at=2)) as bench:
        await bench.request(request_for())
        with pytest.raises(Unavailable):
            await bench.request(request_for())
        await settled()
        assert held.released == 0
        assert len(begin) == 1
        await bench.close()
        assert held.released == 1
        assert len(begin) == 0


class Every(Element):
    """Fails at the n-th request."""

    def __init__(self, fail_at: int) -> None:
        self.fail_at = fail_at
        self._seen = 0

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self._seen += 1
        if self._seen == self.fail_at:
            raise Unavailable("this one fails")
        return await next.request(call, request)


@virtual_time
async def test_posted_events_run_later_in_tasks_of_their_own_and_coalesce() -> None:
    held, probe = Holder(), Probe()
    async with rig(Begin(), held, probe) as bench:
        await bench.request(request_for(), timeout=7)
        told, also = Told(), Told()
        held.calls[0].events.refresh(told)
        held.calls[0].events.refresh(also)
        assert probe.seen.requests == 1, "a post runs nothing itself"
        await settled()
        assert probe.seen.requests == 2
        assert told.outcomes == also.outcomes == [(Outcome.DONE, None)]
        fresh = held.calls[-1]
        assert fresh.cause is Cause.REFRESH
        assert fresh.remaining() == pytest.approx(7 - 0.05, abs=0.01)
        await bench.close()


@virtual_time
async def test_reselect_closes_then_requests_anew() -> None:
    held, probe = Holder(), Probe()
    async with rig(Begin(), held, probe) as bench:
        first = request_for()
        first.connection.network_service_endpoint_name = "nse-1"
        await bench.request(first)
        told = Told()
        held.calls[0].events.reselect(done=told)
        await settled()
        assert told.outcomes == [(Outcome.DONE, None)]
        assert [passed.verb for passed in probe.seen.calls] == ["request", "close", "request"]
        asked = probe.seen.calls[-1].connection
        assert (asked.network_service_endpoint_name, asked.state) == ("", State.RESELECT_REQUESTED)
        assert held.calls[-1].cause is Cause.RESELECT
        await bench.close()


@virtual_time
async def test_a_failed_reselect_can_be_repeated() -> None:
    held = Holder()
    async with rig(Begin(), held, Every(fail_at=2)) as bench:
        await bench.request(request_for())
        told = Told()
        held.calls[0].events.reselect(done=told)
        await settled()
        assert told.outcomes[0][0] is Outcome.FAILED
        held.calls[0].events.reselect(lambda request: setattr(request.connection, "payload", "IP"), told)
        await settled()
        assert told.outcomes[1] == (Outcome.DONE, None)
        assert bench.seen.calls[-1].connection.payload == "IP"
        await bench.close()


@virtual_time
async def test_a_reselect_whose_close_takes_all_the_time_can_be_repeated() -> None:
    held, park = Holder(), Park(verb="close")
    async with rig(Begin(), held, park) as bench:
        await bench.request(request_for(), timeout=3)
        told = Told()
        held.calls[0].events.reselect(done=told)
        await anyio.sleep(10)
        assert told.outcomes[0][0] is Outcome.FAILED
        park.release()
        held.calls[0].events.reselect(done=told)
        await settled()
        assert told.outcomes[1] == (Outcome.DONE, None)
        await bench.close()


@virtual_time
async def test_a_close_makes_pending_posts_needless() -> None:
    held, park = Holder(), Park(verb="close")
    async with rig(Begin(), held, park) as bench:
        await bench.request(request_for())
        told = Told()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.close)
            await settled()
            held.calls[0].events.refresh(told)
            held.calls[0].events.close(told)
            park.release()
        await settled()
        assert [outcome for outcome, _ in told.outcomes] == [Outcome.SKIPPED, Outcome.SKIPPED]
        assert bench.seen.requests == 1


@virtual_time
async def test_close_runs_every_element_although_one_fails() -> None:
    above, below, begin = Holder(), Holder(), Begin()
    async with rig(begin, above, Refuser(1), below) as bench:
        await bench.request(request_for())
        await bench.close()
        assert (above.released, below.released, len(begin)) == (1, 1, 0)


@virtual_time
async def test_close_may_be_repeated_after_it_failed() -> None:
    above, below, begin = Holder(), Holder(), Begin()
    async with rig(begin, above, Refuser(2), below) as bench:
        await bench.request(request_for(lifetime=60))
        with pytest.raises(Unavailable, match="not now"):
            await bench.close()
        assert (above.released, below.released) == (1, 1), "all others have done their part"
        await bench.close()
        assert len(begin) == 0
        await bench.close()
        assert not await bench.left()


@virtual_time
async def test_what_a_close_leaves_is_closed_again_until_the_token_expires() -> None:
    begin, refuser = Begin(), Refuser(10_000)
    async with rig(begin, Holder(), refuser) as bench:
        await bench.request(request_for(lifetime=600))
        with pytest.raises(Unavailable):
            await bench.close()
        await anyio.sleep(100)
        tried = 10_000 - refuser.times
        assert 4 * 2 <= tried <= 12 * 2, "the pauses grow"
        await anyio.sleep(600)
        assert len(begin) == 0
        assert not await bench.left()


@virtual_time
async def test_a_cancelled_close_is_finished_without_its_caller() -> None:
    held, begin, park = Holder(), Begin(), Park(verb="close")
    async with rig(begin, held, park, Holder()) as bench:
        await bench.request(request_for(lifetime=60))
        with anyio.move_on_after(1):
            await bench.close()
        await settled()
        park.release()
        assert not await bench.left()
        assert len(begin) == 0


@virtual_time
async def test_a_waiter_honours_its_own_deadline() -> None:
    park = Park(verb="request")
    async with rig(Begin(), park) as bench, anyio.create_task_group() as tasks:
        tasks.start_soon(bench.request, request_for())
        await settled()
        with pytest.raises(DeadlineExceeded) as caught:
            await bench.request(request_for(), timeout=1)
        assert caught.value.hop == "rig"
        assert caught.value.element == "Begin.request"
        park.release()
        await settled()
        await bench.close(request_for().connection)


@virtual_time
async def test_a_server_reselects_when_its_caller_says_so() -> None:
    held, probe = Holder(), Probe()
    async with rig(Begin(), held, probe) as bench:
        await bench.request(request_for())
        again = request_for()
        again.connection.state = State.RESELECT_REQUESTED
        answer = await bench.request(again)
        assert [passed.verb for passed in probe.seen.calls] == ["request", "close", "request"]
        assert answer.state == State.UP
        await bench.close()


@virtual_time
async def test_a_stale_object_does_not_undo_a_heal() -> None:
    held = Holder()

    class Moves(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            conn = await next.request(call, request)
            conn.network_service_endpoint_name = "nse-2" if call.cause is Cause.RESELECT else "nse-1"
            return conn

    async with rig(Begin(merges=True), held, Moves()) as bench:
        stale = await bench.request(request_for())
        assert stale.network_service_endpoint_name == "nse-1"
        held.calls[0].events.reselect()
        await settled()
        stale.labels["new"] = "label"
        await bench.request(Request(connection=stale))
        asked = bench.seen.calls[-1].connection
        assert asked.network_service_endpoint_name == "nse-2"
        assert asked.labels["new"] == "label"
        await bench.close()


@virtual_time
async def test_closing_what_nobody_knows_is_no_error() -> None:
    probe = Probe()
    async with rig(Begin(), Holder(), probe) as bench:
        await bench.close(request_for("unknown").connection)
        assert probe.seen.closes == 1, "elements may still find their things by tag"
        assert not await bench.left()


def resumed(*, beyond: int = 1, life: float = 100.0, state: State = State.UP) -> Request:
    """A request whose path goes on beyond this hop, from a caller whose token lives so long."""
    request = Request(connection=Connection(id="c1", network_service="ns", state=state))
    path = request.connection.path
    path.path_segments.extend([PathSegment(name="caller", id="c0"), PathSegment(name="rig", id="c1")])
    path.path_segments.extend(PathSegment(name=f"hop-{at}", id=f"h{at}") for at in range(beyond))
    path.index = 1
    clock = current_clock()
    if clock is not None:
        set_expiry(path.path_segments[0], clock.wall() + life)
    return request


@virtual_time
async def test_a_failed_request_of_a_connection_that_lives_beyond_undoes_nothing() -> None:
    held, begin = Holder(), Begin()
    async with rig(begin, held, FailTimes(1, Unavailable("gone"))) as bench:
        with pytest.raises(Unavailable, match="gone"):
            await bench.request(resumed())
        await settled()
        assert held.released == 0
        assert len(begin) == 1, "what the element holds is to be released one day"
        answer = await bench.request(resumed())
        assert answer.state == State.UP
        await bench.close(answer)
        assert not await bench.left()
        assert held.released == 1


@virtual_time
@pytest.mark.parametrize("error", [Unavailable("gone"), None], ids=["refused", "cancelled"])
async def test_what_was_taken_up_ends_with_the_token_of_a_caller_who_never_asks_again(error: NsmError | None) -> None:
    held, begin, park = Holder(), Begin(), Park()
    async with rig(begin, held, park, *([FailTimes(3, error)] if error is not None else [])) as bench:
        clock = current_clock()
        assert clock is not None
        for _ in range(3):
            if error is None:
                park.hold()
            with anyio.move_on_after(1.0):
                with pytest.raises(Unavailable):
                    await bench.request(resumed(life=60.0))
                assert error is not None
            await anyio.sleep(50.0)
            assert held.released == 0, "each attempt has brought a fresh token"
        await anyio.sleep(10.0)
        assert held.released == 1
        assert len(begin) == 0
        assert not await bench.left()


@virtual_time
async def test_a_refused_request_of_a_connection_that_lives_beyond_leaves_no_record() -> None:
    begin = Begin()
    async with rig(begin, FailTimes(1, Unavailable("gone")), Holder()) as bench:
        with pytest.raises(Unavailable, match="gone"):
            await bench.request(resumed())
        assert len(begin) == 0
        assert not await bench.left()


@virtual_time
async def test_a_connection_that_selects_anew_lives_nowhere() -> None:
    held, begin = Holder(), Begin()
    async with rig(begin, held, FailTimes(2, Unavailable("gone"))) as bench:
        with pytest.raises(Unavailable, match="gone"):
            await bench.request(resumed(state=State.RESELECT_REQUESTED))
        await settled()
        assert (held.released, len(begin)) == (1, 0)
        with pytest.raises(Unavailable, match="gone"):
            await bench.request(resumed())
        assert (held.released, len(begin)) == (1, 1)
        await bench.request(resumed(state=State.RESELECT_REQUESTED))
        assert held.released == 2, "the former was closed first"
        await bench.close(resumed().connection)
        assert not await bench.left()


def through(hop: str, life: float) -> Request:
    """A request that comes by `hop`, of a client whose token lives so long."""
    request = Request(connection=Connection(id="c2", network_service="ns"))
    path = request.connection.path
    path.path_segments.extend([PathSegment(name="nsc", id="c0"), PathSegment(name=hop, id=f"{hop}-1")])
    path.path_segments.add(name="rig", id="c2")
    path.index = 2
    clock = current_clock()
    assert clock is not None
    for segment in path.path_segments[:2]:
        set_expiry(segment, clock.wall() + life)
    return request


@virtual_time
async def test_a_hop_that_a_connection_has_left_cannot_close_it() -> None:
    held, begin = Holder(), Begin()
    async with rig(begin, held) as bench:
        await bench.request(through("forwarder-1", 60.0))
        late = through("forwarder-1", 60.0).connection
        await bench.request(through("forwarder-2", 90.0))
        await bench.close(late)
        assert (held.released, len(begin)) == (0, 1)
        # A client that closes by another hop has a fresh token.
        await bench.close(through("forwarder-3", 95.0).connection)
        assert (held.released, len(begin)) == (1, 0)
        await bench.request(through("forwarder-1", 60.0))
        await bench.close(late)
        assert (held.released, len(begin)) == (2, 0)
        assert not await bench.left()


class Finder(Element):
    """Finds what an earlier run has made."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.events.adopt()
        return await next.request(call, request)


@virtual_time
async def test_what_an_element_has_found_is_not_undone() -> None:
    held, begin = Holder(), Begin()
    async with rig(begin, Finder(), held, FailTimes(1, Unavailable("gone"))) as bench:
        with pytest.raises(Unavailable, match="gone"):
            await bench.request(resumed(beyond=0, life=60.0))
        await anyio.sleep(30.0)
        assert (held.released, len(begin)) == (0, 1)
        await anyio.sleep(30.0)
        assert (held.released, len(begin)) == (1, 0)
        assert not await bench.left()
