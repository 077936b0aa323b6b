# SPDX-License-Identifier: Apache-2.0
"""Fault injection: every point is met once, and whatever strikes wherever, nothing is left."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Chain, Element, Next, Query, Slot
from nsm_sdk.elements import Begin, UpdatePath
from nsm_sdk.errors import Aborted, ProgrammingError, Unavailable
from nsm_sdk.testing import (
    Entries,
    Fault,
    Faults,
    Probe,
    bind_registry,
    explore,
    fault_points,
    loopback,
    rig,
    run_virtual,
    sample_endpoint,
    sample_request,
    settled,
    virtual_time,
)


class Works(Element):
    """Takes something, waits, and gives it back at close."""

    def __init__(self) -> None:
        self._held = Slot[int]("held")
        self.held: set[str] = set()

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        await anyio.sleep(1.0)
        self.held.add(request.connection.id)
        self._held.set(call, 1)
        await anyio.sleep(1.0)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        try:
            await next.close(call, conn)
        finally:
            self.held.discard(conn.id)
            self._held.pop(call)


class Careless(Works):
    """Forgets what it took when the work below fails, without any help from Begin."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.held.add(request.connection.id)
        answer = await next.request(call, request)
        self.held.discard(request.connection.id)
        return answer


async def two_hops(faults: Faults) -> None:
    near, far = Works(), Works()
    server = Chain("server", UpdatePath("server"), Begin(), far)
    client = Chain("client", UpdatePath("client"), Begin(), near)
    async with loopback(server, client, observe=faults) as link:
        ended = await faults.run(link.client.request(timeout=30.0))
        if ended.answer is not None:
            await link.client.close(ended.answer)
        elif faults.fault is not Fault.FAIL:
            # The answer may have been on its way; whoever missed it closes, and finds the same connection.
            await link.client.close(sample_request().connection)
        await asyncio.sleep(120.0)
        assert near.held == far.held == set()
        assert not await link.client.left()
        assert not link.server.runtime.running


def test_nothing_is_left_whatever_strikes_in_two_hops() -> None:
    runs = explore(two_hops, kinds=(Fault.FAIL, Fault.CANCEL, Fault.ABORT))
    assert len(runs) > 15
    assert all(run.struck for run in runs)
    where = " ".join(run.struck for run in runs)
    assert "Works.request" in where
    assert "UpdatePath.request" in where
    assert "the caller" in where
    assert "before turn 5" in where


def test_a_lost_answer_is_undone_as_well() -> None:
    runs = explore(two_hops, kinds=(Fault.LOSE,))
    assert [run.struck.rpartition(" ")[2] for run in runs] == [
        "Works.request",
        "Begin.request",
        "UpdatePath.request",
        "Connect.request",
        "Onward.request",
        "Works.request",
        "Begin.request",
        "UpdatePath.request",
    ]


def test_a_careless_element_is_found_and_the_fault_named() -> None:
    async def scenario(faults: Faults) -> None:
        careless = Careless()
        async with rig(careless, Probe(), observe=faults, begin=False, check=False) as bench:
            await faults.run(bench.request())
        assert careless.held == set()

    with pytest.raises(AssertionError) as caught:
        explore(scenario, kinds=(Fault.FAIL,))
    assert caught.value.__notes__ == ["with Faults(fail, at=1, struck: point 1 (fail), at Probe.request)"]


@virtual_time
async def test_without_a_point_it_only_counts() -> None:
    counts: dict[Fault, int] = {}
    for fault in (Fault.FAIL, Fault.LOSE, Fault.CANCEL):
        faults = Faults(fault)
        async with rig(Works(), observe=faults) as bench:
            ended = await faults.run(bench.request())
            assert ended.error is None
            assert ended.answer is not None
        assert faults.struck == ""
        counts[fault] = faults.points
    assert counts[Fault.FAIL] == counts[Fault.LOSE] == 2, "Begin and Works"
    assert counts[Fault.CANCEL] >= 6, "the two sleeps and the start of the call, and a turn of the loop after each"


@virtual_time
@pytest.mark.parametrize("fault", [Fault.CANCEL, Fault.ABORT])
async def test_a_cancelled_caller_may_go_on(fault: Fault) -> None:
    faults = Faults(fault, 2)
    async with rig(Works(), observe=faults) as bench:
        ended = await faults.run(bench.request())
        assert isinstance(ended.error, asyncio.CancelledError)
        assert "Works.request" in faults.struck
        # The scenario itself is not cancelled.
        await asyncio.sleep(1.0)
        assert not await bench.left()


@virtual_time
async def test_foreign_cancellation_is_not_swallowed() -> None:
    faults = Faults(Fault.ABORT)
    with anyio.move_on_after(5.0) as scope:
        await faults.run(anyio.sleep_forever())
    assert scope.cancelled_caught


@virtual_time
async def test_acting_at_a_point() -> None:
    faults = Faults(Fault.ACT, 4)
    async with rig(Works(), observe=faults) as bench:
        faults.act = bench.running.kill
        with anyio.move_on_after(60.0):
            await faults.run(bench.request(timeout=10.0))
        await bench.running.wait_ended()
        assert faults.struck == "point 4 (act), while waiting in Works.request"


@virtual_time
async def test_the_error_can_be_chosen() -> None:
    faults = Faults(Fault.FAIL, 0, error=Aborted("mine"))
    async with rig(Works(), observe=faults) as bench:
        ended = await faults.run(bench.request())
    assert isinstance(ended.error, Aborted)


@virtual_time
async def test_streams_fail_at_their_start_and_at_each_item() -> None:
    names = [sample_endpoint(f"nse-{number}") for number in range(3)]

    async def read(faults: Faults) -> int:
        bound = bind_registry(Entries(*names), observe=faults)
        count = 0
        async with rig() as bench:
            async for _ in bound.find(bench.call(), Query(sample_endpoint(""))):
                count += 1
        return count

    counting = Faults(Fault.FAIL)
    assert (await counting.run(read(counting))).answer == 3
    assert counting.points == 4
    broken = Faults(Fault.FAIL, 2)
    ended = await broken.run(read(broken))
    assert isinstance(ended.error, Unavailable)
    assert broken.struck.endswith("Entries.find (an item)")


def test_a_scenario_without_points_is_refused() -> None:
    async def scenario(faults: Faults) -> None:
        await settled()

    with pytest.raises(ProgrammingError, match="no point for fail"):
        list(fault_points(scenario))


def test_fault_points_are_numbered_and_can_be_thinned_out() -> None:
    async def scenario(faults: Faults) -> None:
        async with rig(Probe(), Probe(), Probe(), observe=faults) as bench:
            await faults.run(bench.request())

    assert [faults.at for faults in fault_points(scenario, kinds=(Fault.FAIL,))] == [0, 1, 2]
    assert [faults.at for faults in fault_points(scenario, kinds=(Fault.FAIL,), stride=2)] == [0, 2]
    for faults in fault_points(scenario, kinds=(Fault.LOSE,)):
        run_virtual(scenario, faults)
        assert faults.struck
