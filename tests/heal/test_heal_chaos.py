# SPDX-License-Identifier: Apache-2.0
"""A day of random trouble.

Does:  many connections live through one virtual day of one-hour tokens in which managers, endpoints, registrations and
       datapaths break and come back at random, repeatably. No connection is lost that had an endpoint to go to, none is
       healed without a cause, nothing is left, and every journal agrees with what was done to the world.
Place: nsm_sdk.heal with the chain of a client, in virtual time.
State: none.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field

import pytest

from nsm_sdk.errors import Unavailable
from nsm_sdk.heal import Entry, Heal, Kind, Phase, Why, story
from nsm_sdk.testing import DAY, VirtualClock, rig, sample_request, virtual_time
from tests.heal.world import Flows, Nse, World, client

NSES = 4
HOUR = 3600.0
TROUBLE = 30.0
CALM = 900.0
"""Mean seconds until the next turn, while something is broken and while nothing is."""
QUIET = 1500.0
"""Without faults at the end: longer than any attempt is put off."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """Something that was broken from `since` until `until`."""

    what: str
    name: str
    since: float
    until: float = field(default=float("inf"))


class Chaos:
    """Breaks and repairs; one endpoint always stays well."""

    def __init__(self, world: World, probe: Flows, seed: int) -> None:
        self.world = world
        self.probe = probe
        self.dice = random.Random(seed)
        self.faults: list[Fault] = []
        self.open: dict[str, Fault] = {}

    async def turn(self, now: float) -> None:
        """Break something, or repair it."""
        what = self.dice.choice(("manager", "kill", "unregister", "cut", "errors"))
        name = f"nse-{self.dice.randrange(1, NSES)}" if what in ("kill", "unregister", "cut") else ""
        key = f"{what} {name}"
        if self.open and (key in self.open or self.dice.random() < 0.7):
            await self.repair(self.dice.choice(sorted(self.open)), now)
        else:
            fault = self.open[key] = Fault(what=what, name=name, since=now)
            self.faults.append(fault)
            await self.break_(fault)

    async def break_(self, fault: Fault) -> None:
        match fault.what:
            case "manager":
                await self.world.kill_manager()
            case "kill":
                self.world.kill_nse(fault.name, data=False)
            case "unregister":
                self.world.endpoints[fault.name].registered = False
            case "cut":
                self.probe.cut(fault.name)
            case _:
                self.world.error = Unavailable("the registry is away")

    async def repair(self, key: str, now: float) -> None:
        fault = self.open.pop(key)
        fault.until = now
        match fault.what:
            case "manager":
                await self.world.start_manager(remembers=self.dice.random() < 0.5)
            case "kill":
                self.world.endpoints[fault.name].serves = True
            case "unregister":
                self.world.endpoints[fault.name].registered = True
            case "cut":
                self.world.endpoints[fault.name].flows = True
            case _:
                self.world.error = None

    async def repair_all(self, now: float) -> None:
        for key in list(self.open):
            await self.repair(key, now)

    def caused(self, entry: Entry) -> bool:
        """Whether something was broken at that time, or shortly before, that explains the healing."""
        kinds = {
            Why.DATA: {"cut"},
            Why.DOWN: {"kill", "manager"},
            Why.LOST: {"manager"},
            Why.MISSING: {"manager"},
            Why.REFRESH: {"manager", "errors", "kill", "unregister"},
        }[Why(entry.why)]
        return any(fault.what in kinds and fault.since <= entry.at <= fault.until + 10.0 for fault in self.faults)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A day of trouble is a lot of warnings."""
    caplog.set_level(logging.CRITICAL, "nsm_sdk")


async def live(count: int, seed: int, faults: bool, *, trouble: float = TROUBLE, calm: float = CALM) -> None:
    """The day, and what must be true at its end."""
    world = World(life=HOUR, piles=False, endpoints={f"nse-{n}": Nse(name=f"nse-{n}", net=n) for n in range(NSES)})
    probe = Flows(world, events=True)
    heal = Heal(probe, seed=seed)
    chaos = Chaos(world, probe, seed)
    names = [f"c{number}" for number in range(count)]
    async with rig(*client(world, heal)) as bench:
        clock = VirtualClock()
        for name in names:
            world.endpoints = dict(chaos.dice.sample(sorted(world.endpoints.items()), NSES))
            await bench.request(sample_request(name), timeout=15.0)
            await clock.advance(1.0)
        while faults and clock.now() < DAY - QUIET:
            await chaos.turn(clock.now())
            await clock.advance(chaos.dice.expovariate(1 / (trouble if chaos.open else calm)))
        await chaos.repair_all(clock.now())
        await clock.advance(max(DAY - clock.now(), QUIET))
        heals = 0
        for name in names:
            journal = heal.journals.get(name)
            standing = heal.standing(name)
            assert journal is not None
            assert standing is not None
            heals += journal.heals
            assert standing.phase is Phase.WATCHING, story(journal)
            known = world.known(name)
            assert known is not None, story(journal)
            nse = world.endpoints[known.network_service_endpoint_name]
            assert nse.serves, story(journal)
            assert nse.flows, story(journal)
            for entry in journal.of(Kind.HEALING):
                assert chaos.caused(entry), f"{entry}\n{story(journal)}"
            for entry in journal.of(Kind.HEALED):
                assert entry.repair is not None
                assert entry.repair >= 0
        assert bool(heals) == faults
        for name in names:
            await bench.close(sample_request(name).connection)
        left = await bench.left()
        assert not left.slots
        assert not left.tasks
        assert left.timers == 0
        assert not probe.followers
        assert len(world.hub) == 0


@virtual_time
async def test_a_day_without_trouble_heals_nothing() -> None:
    await live(20, 1, faults=False)


@pytest.mark.parametrize("seed", range(4))
@virtual_time
async def test_a_day_of_trouble(seed: int) -> None:
    await live(20, seed, faults=True)


@pytest.mark.long
@pytest.mark.timeout(600)
@virtual_time
async def test_a_day_of_trouble_with_a_thousand_connections() -> None:
    await live(1000, 42, faults=True, trouble=15.0, calm=3600.0)
