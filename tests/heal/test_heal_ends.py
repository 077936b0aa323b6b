# SPDX-License-Identifier: Apache-2.0
"""A request to the old endpoint is under way, and meanwhile the datapath dies.

Does:  holds requests up below healing, cuts the datapath, and looks at what is ended, when, and what follows.
Place: nsm_sdk.heal.shell and element, in virtual time.
State: none.
"""

from __future__ import annotations

import anyio

from nsm_sdk.api import Connection, Request, State
from nsm_sdk.core import Call, Cause, Element, Next
from nsm_sdk.heal import Heal, Kind, Phase
from nsm_sdk.testing import Rig, VirtualClock, rig, settled, virtual_time
from tests.heal.world import Flows, Nse, World, client

ID = "connection-1"


class Hold(Element):
    """Holds requests of some causes up, before or after the next hop has answered."""

    def __init__(self, *causes: Cause, answered: bool = False) -> None:
        self.causes = frozenset(causes)
        self.answered = answered
        self.gate = anyio.Event()
        self.held: list[Cause] = []
        self.ended: list[Cause] = []

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if call.cause not in self.causes or self.gate.is_set():
            return await next.request(call, request)
        self.held.append(call.cause)
        if self.answered:
            conn = await next.request(call, request)
            # As an answer that is already on its way up.
            with anyio.CancelScope(shield=True):
                await self.gate.wait()
            return conn
        try:
            await self.gate.wait()
        except anyio.get_cancelled_exc_class():
            self.ended.append(call.cause)
            raise
        return await next.request(call, request)


def two() -> World:
    return World(endpoints={"nse-1": Nse(name="nse-1", net=1), "nse-2": Nse(name="nse-2", net=2)})


def texts(heal: Heal, *wanted: Kind) -> list[str]:
    journal = heal.journals.get(ID)
    assert journal is not None
    return [entry.text for entry in journal.of(*wanted)]


def moved(world: World, heal: Heal) -> bool:
    """Healed once, at the other endpoint, after a close."""
    journal, known = heal.journals.get(ID), world.known(ID)
    assert journal is not None
    assert known is not None
    counts = (journal.heals, journal.moves)
    return counts == (1, 1) and known.network_service_endpoint_name == "nse-2"


async def nothing_left(bench: Rig) -> None:
    await bench.close()
    left = await bench.left()
    assert not left.slots
    assert not left.tasks
    assert left.timers == 0


@virtual_time
async def test_an_attempt_at_the_old_endpoint_is_ended_when_the_datapath_dies() -> None:
    world, hold = two(), Hold(Cause.REFRESH)
    probe = Flows(world, events=True)
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal, hold)) as bench:
        await bench.request()
        await settled()
        # The process hangs, its datapath flows: healing asks the same endpoint again, and gets no answer.
        world.say(ID, State.DOWN)
        await VirtualClock().advance(1.0)
        standing = heal.standing(ID)
        assert standing is not None
        assert standing.phase is Phase.TRYING
        assert (hold.held, hold.ended) == ([Cause.REFRESH], [])
        probe.cut("nse-1")
        began = bench.runtime.clock.now()
        await settled()
        assert hold.ended == [Cause.REFRESH]
        assert moved(world, heal)
        seen = [(one.verb, one.at) for one in world.calls[1:3]]
        assert seen == [("close", began), ("request", began)]
        assert world.calls[2].conn.state == State.RESELECT_REQUESTED
        [ended] = texts(heal, Kind.FAILED)
        assert "its datapath has turned out dead" in ended
        [first, second] = texts(heal, Kind.ATTEMPT)
        assert first.startswith("attempt 1: request again")
        assert second.startswith("attempt 2: select anew")
        await nothing_left(bench)


@virtual_time
async def test_a_refresh_that_hangs_is_ended_when_the_datapath_dies() -> None:
    world, hold = two(), Hold(Cause.REFRESH)
    probe = Flows(world, events=True)
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal, hold)) as bench:
        await bench.request()
        while not hold.held:
            await VirtualClock().advance(5.0)
        probe.cut("nse-1")
        await settled()
        assert hold.ended == [Cause.REFRESH]
        assert moved(world, heal)
        hold.gate.set()
        # The next refresh comes in its time, from the new endpoint.
        await VirtualClock().advance(world.life)
        assert {one.conn.network_service_endpoint_name for one in world.requests()[3:]} == {"nse-2"}
        assert moved(world, heal)
        await nothing_left(bench)


@virtual_time
async def test_a_slow_check_ends_it_too() -> None:
    world, hold = two(), Hold(Cause.REFRESH)
    heal = Heal(Flows(world), seed=1)
    async with rig(*client(world, heal, hold)) as bench:
        await bench.request()
        await settled()
        world.say(ID, State.DOWN)
        await VirtualClock().advance(1.0)
        assert hold.held == [Cause.REFRESH]
        world.endpoints["nse-1"].flows = False
        # One interval and one time-out; the request itself would be given 15 s.
        await VirtualClock().advance(heal.liveness.interval + heal.liveness.timeout)
        assert hold.ended == [Cause.REFRESH]
        assert moved(world, heal)
        await nothing_left(bench)


@virtual_time
async def test_an_answer_that_still_comes_does_not_end_the_healing() -> None:
    world, hold = two(), Hold(Cause.REFRESH, answered=True)
    probe = Flows(world, events=True)
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal, hold)) as bench:
        await bench.request()
        await settled()
        world.say(ID, State.DOWN)
        await VirtualClock().advance(1.0)
        assert hold.held == [Cause.REFRESH]
        probe.cut("nse-1")
        await settled()
        assert not moved(world, heal)
        hold.gate.set()
        await settled()
        assert moved(world, heal)
        await nothing_left(bench)


@virtual_time
async def test_a_request_of_the_application_is_not_ended() -> None:
    world, hold = two(), Hold()
    probe = Flows(world, events=True)
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal, hold)) as bench:
        conn = await bench.request()
        await settled()
        hold.causes = frozenset({Cause.CALL})
        answers: list[Connection] = []

        async def ask() -> None:
            answers.append(await bench.request(Request(connection=conn)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await settled()
            assert hold.held == [Cause.CALL]
            probe.cut("nse-1")
            await VirtualClock().advance(1.0)
            assert (hold.ended, answers) == ([], [])
            hold.gate.set()
        assert answers
        await VirtualClock().advance(5.0)
        known = world.known(ID)
        assert known is not None
        assert known.network_service_endpoint_name == "nse-2"
        await nothing_left(bench)
