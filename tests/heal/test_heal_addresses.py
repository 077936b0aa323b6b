# SPDX-License-Identifier: Apache-2.0
"""What healing does to addresses by itself is no trouble.

Does:  a probe that hears of every address that goes: while a request is under way that changes them, and after a move,
       when those of the former endpoint are taken off.
Place: nsm_sdk.heal with the chain of a client, in virtual time.
State: none.
"""

from __future__ import annotations

from nsm_sdk.api import State
from nsm_sdk.core import Runtime
from nsm_sdk.heal import Heal, Probe, Target, Verdict
from nsm_sdk.heal.probes.probe import ALIVE, Cancel, Tell
from nsm_sdk.testing import VirtualClock, rig, sample_request, settled, virtual_time
from tests.heal.test_heal_scenarios import ID, healed, nothing_left, two
from tests.heal.world import World, client


class Addresses(Probe):
    """Hears of addresses that go, as `Carrier` does; what is not in `here` is gone."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.watched: list[tuple[str, ...]] = []
        self.followers: list[tuple[Target, Tell]] = []

    def verdict(self, target: Target) -> Verdict:
        gone = [source for source in target.sources if source not in self.here]
        return Verdict(False, f"address {gone[0]} is gone", passing=True) if gone else ALIVE

    def begin(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel:
        return runtime.after(0.0, lambda: tell(self.verdict(target))).cancel

    def tick(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel | None:
        return None

    def follow(self, runtime: Runtime, target: Target, tell: Tell) -> Cancel | None:
        one = (target, tell)
        self.watched.append(target.sources)
        self.followers.append(one)
        return lambda: self.followers.remove(one)

    def take_off(self, *addresses: str) -> None:
        self.here -= set(addresses)
        for target, tell in list(self.followers):
            tell(self.verdict(target))


@virtual_time
async def test_addresses_of_the_former_endpoint_are_not_watched() -> None:
    world = World(endpoints=two())
    probe = Addresses()
    probe.here = {"10.0.1.1", "10.0.2.1"}
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.kill_nse("nse-1", registered=False)
        probe.take_off("10.0.1.1")
        await VirtualClock().advance(5)
        assert healed(heal) == (1, 1)
        assert set(probe.watched) == {("10.0.1.1",), ("10.0.2.1",)}
        await nothing_left(bench)


@virtual_time
async def test_a_request_under_way_may_change_addresses() -> None:
    world = World(endpoints=two())
    probe = Addresses()
    probe.here = {"10.0.1.1", "10.0.3.1"}
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal)) as bench:
        conn = await bench.request()
        await settled()
        world.endpoints["nse-1"].net = 3
        world.piles = False
        world.gate = lambda _: probe.take_off("10.0.1.1")
        again = sample_request(ID)
        again.connection.CopyFrom(conn)
        await bench.request(again)
        world.gate = None
        await VirtualClock().advance(5)
        assert healed(heal) == (0, 0)
        assert probe.watched[-1] == ("10.0.3.1",)
        # Without a request it is trouble.
        probe.take_off("10.0.3.1")
        await VirtualClock().advance(0.01)
        assert "close" in {seen.verb for seen in world.calls}
        await nothing_left(bench)


@virtual_time
async def test_addresses_that_stay_away_after_a_request_are_trouble() -> None:
    world = World(endpoints=two())
    probe = Addresses()
    probe.here = {"10.0.1.1"}
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal)) as bench:
        conn = await bench.request()
        await settled()
        world.gate = lambda _: probe.take_off("10.0.1.1")
        again = sample_request(ID)
        again.connection.CopyFrom(conn)
        await bench.request(again)
        world.gate = None
        await VirtualClock().advance(0.01)
        assert "close" in {seen.verb for seen in world.calls}
        await nothing_left(bench)


@virtual_time
async def test_a_datapath_that_nothing_repairs_is_not_hammered() -> None:
    world = World(endpoints=two())
    probe = Addresses()
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await VirtualClock().advance(60)
        anew = [seen for seen in world.requests() if seen.conn.state == State.RESELECT_REQUESTED]
        # As often as after failed attempts: pauses doubled up to 5 s.
        assert 12 < len(anew) < 35
        probe.here = {"10.0.1.1", "10.0.2.1"}
        await VirtualClock().advance(10)
        before = len(world.requests())
        await VirtualClock().advance(60)
        assert len(world.requests()) == before
        # Once it has worked, the next trouble is urgent again.
        probe.take_off("10.0.1.1", "10.0.2.1")
        await VirtualClock().advance(0.001)
        assert len(world.requests()) == before + 1
        await nothing_left(bench)
