# SPDX-License-Identifier: Apache-2.0
"""No restart storm.

Does:  a thousand connections whose manager vanishes: those whose data flows come back within ten seconds, spread; those
       whose data is down go first and at once; a manager that is overrun is left alone for as long as it says.
Place: nsm_sdk.heal with the chain of a client, in virtual time.
State: none.
"""

from __future__ import annotations

import math
import random
from collections import Counter

import anyio
import pytest

from nsm_sdk.api import Connection, Request, set_expiry
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.elements import Begin, LoadLimit, Retry, UpdatePath
from nsm_sdk.errors import Unavailable, pushback
from nsm_sdk.heal import Heal, Liveness, Policy
from nsm_sdk.testing import VirtualClock, rig, sample_request, settled, virtual_time
from tests.heal.world import Flows, Nse, World, client

COUNT = 1000
LIFE = 600.0
REFRESH = LIFE * 0.2
WINDOW = 10.0
"""Seconds within which all have asked again, once the manager is back."""


def rates(times: list[float], bins: float) -> list[float]:
    """Requests a second in each bin."""
    if not times:
        return []
    start, end = min(times), max(times)
    counts = [0] * (int((end - start) / bins) + 1)
    for at in times:
        counts[int((at - start) / bins)] += 1
    return [count / bins for count in counts]


@pytest.mark.parametrize("outage", [5.0, pytest.param(200.0, marks=pytest.mark.long)])
@virtual_time
async def test_connections_whose_data_flows_come_back_spread_out(outage: float) -> None:
    world = World(life=LIFE)
    heal = Heal(Flows(world, events=True), seed=7)
    dice = random.Random(7)
    clock_of_first = 0.0
    async with rig(*client(world, heal)) as bench:
        clock = VirtualClock()
        # they come one after the other, as they do in life, so that refreshes are spread
        for number in range(COUNT):
            await bench.request(sample_request(f"c{number}"))
            await clock.advance(dice.random() * 2 * REFRESH / COUNT)
        await clock.advance(2 * REFRESH)
        lost_at = clock.now()
        await world.kill_manager()
        await clock.advance(outage)
        await world.start_manager()
        clock_of_first = clock.now()
        await clock.advance(WINDOW + 0.1)
        back = [seen.at for seen in world.requests() if seen.at >= clock_of_first]
        assert {seen.conn.id for seen in world.requests() if seen.at >= clock_of_first} == {
            f"c{number}" for number in range(COUNT)
        }
        assert "close" not in {seen.verb for seen in world.calls}
        # A hundred a second and the refreshes that go on meanwhile, give or take what chance does.
        assert max(rates(back, 1.0)) <= 1.4 * COUNT / WINDOW
        assert all(heal.journals.get(f"c{number}") is not None for number in range(COUNT))
        assert lost_at < clock_of_first
        for number in range(COUNT):
            journal = heal.journals.get(f"c{number}")
            assert journal is not None
            assert (journal.heals, journal.moves) == (1, 0)


@virtual_time
async def test_those_whose_data_is_down_go_first() -> None:
    world = World(life=LIFE, endpoints={"nse-1": Nse(name="nse-1"), "nse-2": Nse(name="nse-2", net=2)})
    heal = Heal(Flows(world), liveness=Liveness(interval=1.0, timeout=0.1), seed=7)
    async with rig(*client(world, heal)) as bench:
        clock = VirtualClock()
        dead = [f"d{number}" for number in range(50)]
        for name in dead:
            await bench.request(sample_request(name))
        world.endpoints["nse-1"].serves = False
        for number in range(450):
            await bench.request(sample_request(f"a{number}"))
        await clock.advance(3)
        await world.kill_manager()
        world.endpoints["nse-1"].flows = False
        await clock.advance(0.3)
        await world.start_manager()
        begun = clock.now()
        await clock.advance(3)
        first = [seen.conn.id for seen in world.requests() if seen.at >= begun]
        assert set(dead) <= set(first)
        # The others take their turns meanwhile: three seconds of ten.
        assert len([name for name in first if name.startswith("a")]) <= 1.4 * 450 * 3 / WINDOW
        at_once = [seen.conn.id for seen in world.requests() if begun <= seen.at <= begun + 1.0]
        assert set(dead) <= set(at_once)
        for name in dead:
            journal = heal.journals.get(name)
            assert journal is not None
            assert (journal.heals, journal.moves) == (1, 1)


@pytest.mark.parametrize("seed", range(5))
@virtual_time
async def test_the_same_endpoint_is_asked_once_more_before_the_connection_expires(seed: int) -> None:
    world = World(endpoints={"nse-1": Nse(name="nse-1"), "nse-2": Nse(name="nse-2", net=2)})
    heal = Heal(Flows(world, events=True), seed=seed, policy=Policy(spread=50.0, longest_spread=math.inf))
    # No refresh comes to help, and the manager is back long before the attempt that was put off.
    async with rig(*client(world, heal, refresh=False)) as bench:
        await bench.request()
        await settled()
        await world.kill_manager()
        await VirtualClock().advance(1)
        await world.start_manager()
        await VirtualClock().advance(world.life)
        journal = heal.journals.get("connection-1")
        assert journal is not None
        assert (journal.heals, journal.moves) == (1, 0)
        assert [seen.conn.network_service_endpoint_name for seen in world.requests()] == ["", "nse-1"]
        await bench.close()
        assert (await bench.left()).timers == 0


class Worker(Element):
    """A hop that works on one Request at a time, for `takes` seconds each; the others wait, as they do for a CPU."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.lock = anyio.Lock()
        self.finished = 0
        self.most = 0

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.most = max(self.most, self.lock.statistics().tasks_waiting + 1)
        async with self.lock:
            await anyio.sleep(self.takes)
            answer = await next.request(call, request)
            self.finished += 1
            return answer


@virtual_time
async def test_a_manager_that_is_overrun_is_left_alone_until_it_has_room() -> None:
    worker, limit, refused = Worker(0.02), LoadLimit(50), Counter[str]()
    waits: list[float] = []

    class Count(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            try:
                return await next.request(call, request)
            except Unavailable as error:
                refused[request.connection.id] += 1
                waits.append(pushback(error))
                raise

    chain = (Retry(per_try=15.0, pause=0.001, longest=0.001), Count(), limit, worker)
    async with rig(*chain) as bench:
        async with anyio.create_task_group() as tasks:
            for number in range(COUNT):
                tasks.start_soon(bench.request, sample_request(f"c{number}"))
        assert worker.finished == COUNT
        assert worker.most <= 50
        assert len(refused) >= COUNT - 50
        assert min(waits) > 0
        assert max(waits) <= 10
        # Each waits for its turn: without that they would have come a thousand times a second.
        assert sum(refused.values()) <= 20 * COUNT
        assert VirtualClock().now() <= 3 * COUNT * worker.takes


@virtual_time
async def test_clients_of_an_overrun_manager_come_again_when_it_says() -> None:
    world = World(life=LIFE)
    heal = Heal(Flows(world, events=True), seed=7)
    async with rig(*client(world, heal)) as bench:
        clock = VirtualClock()
        await bench.request(sample_request("c"))
        await settled()
        await world.kill_manager()
        world.error = Unavailable("overrun", retry_after=30.0)
        await world.start_manager()
        await clock.advance(WINDOW)
        asked = [seen.at for seen in world.requests() if seen.error]
        assert len(asked) == 1
        await clock.advance(asked[0] + 29.9 - clock.now())
        assert [seen.at for seen in world.requests() if seen.error] == asked
        world.error = None
        await clock.advance(1)
        assert world.requests()[-1].at >= asked[0] + 30.0
        journal = heal.journals.get("c")
        assert journal is not None
        assert journal.heals == 1


@virtual_time
async def test_data_that_dies_does_not_hurry_past_what_an_overrun_manager_has_said() -> None:
    world = World(life=LIFE, endpoints={"nse-1": Nse(name="nse-1"), "nse-2": Nse(name="nse-2", net=2)})
    flows = Flows(world, events=True)
    heal = Heal(flows, seed=7)
    async with rig(*client(world, heal)) as bench:
        clock = VirtualClock()
        await bench.request(sample_request("c"))
        await settled()
        world.error = Unavailable("overrun", retry_after=5.0)
        flows.cut("nse-1")
        await settled()
        began = clock.now()
        assert [seen.error for seen in world.requests()] == ["", "overrun"]
        await clock.advance(4.9)
        assert len(world.requests()) == 2
        world.error = None
        await clock.advance(0.2)
        assert world.requests()[-1].at >= began + 5.0
        journal = heal.journals.get("c")
        assert journal is not None
        assert (journal.heals, journal.moves) == (1, 1)


@virtual_time
async def test_a_close_that_an_overrun_hop_refuses_is_repeated_when_it_says() -> None:
    closes: list[float] = []

    class Overrun(Element):
        async def close(self, call: Call, conn: Connection, next: Next) -> None:
            closes.append(call.runtime.clock.now())
            # The chain is closed as a whole, and then each element alone.
            if len(closes) <= 2:
                raise Unavailable("overrun", retry_after=20.0)
            await next.close(call, conn)

    async with rig(UpdatePath("nsc"), Begin(), Life(LIFE), Overrun()) as bench:
        conn = await bench.request(sample_request("c"))
        with pytest.raises(Unavailable):
            await bench.close(conn)
        await VirtualClock().advance(30)
        _, second, third = closes
        assert third >= second + 20.0


class Life(Element):
    """Tokens that live so many seconds."""

    def __init__(self, life: float) -> None:
        self.life = life

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        for hop in request.connection.path.path_segments:
            set_expiry(hop, call.runtime.clock.wall() + self.life)
        return await next.request(call, request)
