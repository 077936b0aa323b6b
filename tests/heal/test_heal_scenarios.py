# SPDX-License-Identifier: Apache-2.0
"""Healing as users see it, in virtual time.

Does:  kills and cuts everything in turn, and looks at what was requested, when, and what the journal says of it.
Place: nsm_sdk.heal.element with the chain of a client.
State: none.
"""

from __future__ import annotations

import pytest

from nsm_sdk.api import Request, State
from nsm_sdk.errors import PermissionDenied, Unavailable
from nsm_sdk.heal import Event, Happening, Heal, Kind, Liveness, Phase, Policy, same_endpoint, story
from nsm_sdk.testing import Rig, VirtualClock, rig, sample_request, settled, virtual_time
from tests.heal.world import Flows, Nse, World, client

ID = "connection-1"


def two() -> dict[str, Nse]:
    return {"nse-1": Nse(name="nse-1", net=1), "nse-2": Nse(name="nse-2", net=2)}


def kinds(heal: Heal) -> list[str]:
    journal = heal.journals.get(ID)
    assert journal is not None
    return [entry.kind for entry in journal.entries]


def healed(heal: Heal) -> tuple[int, int]:
    """(heals, moves)"""
    journal = heal.journals.get(ID)
    assert journal is not None
    return journal.heals, journal.moves


async def nothing_left(bench: Rig) -> None:
    await bench.close()
    left = await bench.left()
    assert not left.slots
    assert not left.tasks
    assert left.timers == 0


@virtual_time
async def test_nse_dies_and_another_takes_over() -> None:
    world = World(endpoints=two())
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        conn = await bench.request()
        assert conn.network_service_endpoint_name == "nse-1"
        await settled()
        world.kill_nse("nse-1")
        await settled()
        assert healed(heal) == (1, 1)
        assert [seen.verb for seen in world.calls] == ["request", "close", "request", "request"]
        moved = world.requests()[1].conn
        assert moved.state == State.RESELECT_REQUESTED
        assert moved.network_service_endpoint_name == ""
        assert not moved.HasField("mechanism")
        now = world.known(ID)
        assert now is not None
        assert now.network_service_endpoint_name == "nse-2"
        await nothing_left(bench)


@virtual_time
async def test_old_addresses_are_offered_once_and_do_not_pile_up() -> None:
    world = World(endpoints=two())
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        asked = sample_request()
        asked.connection.context.ip_context.src_ip_addrs.append("192.168.0.1/32")
        await bench.request(asked)
        await settled()
        for dead, alive in (("nse-1", "nse-2"), ("nse-2", "nse-1"), ("nse-1", "nse-2")):
            world.endpoints[alive].serves = world.endpoints[alive].flows = True
            world.kill_nse(dead)
            await VirtualClock().advance(30)
            now = world.known(ID)
            assert now is not None
            net = world.endpoints[alive].net
            assert now.network_service_endpoint_name == alive
            assert list(now.context.ip_context.dst_ip_addrs) == [f"10.0.{net}.0/32"]
            assert sorted(now.context.ip_context.src_ip_addrs) == [f"10.0.{net}.1/32", "192.168.0.1/32"]
        assert healed(heal) == (3, 3)
        offered = [seen.conn for seen in world.requests() if seen.conn.state == State.RESELECT_REQUESTED]
        assert "10.0.1.1/32" in offered[0].context.ip_context.src_ip_addrs
        await nothing_left(bench)


@virtual_time
async def test_addresses_are_not_offered_when_told_so() -> None:
    world = World(endpoints=two())
    heal = Heal(seed=1, offer_addresses=False)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.kill_nse("nse-1")
        await settled()
        assert [seen.verb for seen in world.calls] == ["request", "close", "request"]
        assert not world.requests()[1].conn.context.ip_context.src_ip_addrs
        await nothing_left(bench)


@virtual_time
async def test_nse_process_dies_with_its_datapath_alive_then_its_registration_goes() -> None:
    world = World(endpoints=two())
    heal = Heal(Flows(world), seed=1, policy=Policy(gone_grace=30.0))
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.kill_nse("nse-1", data=False)
        await VirtualClock().advance(60)
        assert {seen.conn.network_service_endpoint_name for seen in world.requests()[1:]} == {"nse-1"}
        assert "close" not in {seen.verb for seen in world.calls}
        # never slower than the longest pause, never a hammer
        assert 12 < len(world.requests()) < 35
        world.endpoints["nse-1"].registered = False
        await VirtualClock().advance(25)
        assert "close" not in {seen.verb for seen in world.calls}
        await VirtualClock().advance(15)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_nse_process_comes_back_and_nothing_has_moved() -> None:
    world = World(endpoints=two())
    heal = Heal(Flows(world), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.kill_nse("nse-1", data=False)
        await VirtualClock().advance(3)
        world.endpoints["nse-1"].serves = True
        await VirtualClock().advance(6)
        assert healed(heal) == (1, 0)
        assert "close" not in {seen.verb for seen in world.calls}
        await nothing_left(bench)


@virtual_time
async def test_expiry_forces_a_move_while_there_is_time() -> None:
    world = World(endpoints=two(), life=120.0)
    heal = Heal(Flows(world), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request(timeout=15.0)
        await settled()
        world.kill_nse("nse-1", data=False)
        await VirtualClock().advance(104)
        assert healed(heal) == (0, 0)
        await VirtualClock().advance(2)
        assert healed(heal) == (1, 1)
        closed = [seen.at for seen in world.calls if seen.verb == "close"]
        # one request time-out (15 s, less what the edge keeps) before the tokens of 120 s run out
        assert 104 < closed[0] < 106
        await nothing_left(bench)


@virtual_time
async def test_manager_comes_back_with_its_memory() -> None:
    world = World()
    heal = Heal(Flows(world), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        await world.kill_manager()
        await VirtualClock().advance(3)
        assert heal.standing(ID) is not None
        await world.start_manager(remembers=True)
        await VirtualClock().advance(6)
        assert healed(heal) == (1, 0)
        assert len(world.requests()) == 1
        await nothing_left(bench)


@virtual_time
async def test_manager_comes_back_without_memory() -> None:
    world = World()
    heal = Heal(Flows(world), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        await world.kill_manager()
        await VirtualClock().advance(3)
        await world.start_manager()
        await VirtualClock().advance(130)
        assert healed(heal) == (1, 0)
        assert {seen.verb for seen in world.calls} == {"request"}
        assert {seen.conn.network_service_endpoint_name for seen in world.requests()[1:]} == {"nse-1"}
        assert world.known(ID) is not None
        await nothing_left(bench)


@virtual_time
async def test_manager_lost_and_datapath_dead_goes_first() -> None:
    world = World(endpoints=two())
    heal = Heal(Flows(world), liveness=Liveness(interval=0.2, timeout=0.1), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        await VirtualClock().advance(1)
        await world.kill_manager()
        world.endpoints["nse-1"].flows = world.endpoints["nse-1"].serves = False
        await VirtualClock().advance(0.5)
        await world.start_manager()
        await VirtualClock().advance(2)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_manager_lost_and_nothing_checks() -> None:
    world = World(endpoints=two())
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        await world.kill_manager()
        await VirtualClock().advance(1)
        await world.start_manager()
        await VirtualClock().advance(8)
        assert healed(heal)[0] == 1
        assert world.known(ID) is not None
        await nothing_left(bench)


@virtual_time
async def test_silent_datapath_is_detected_in_time() -> None:
    world = World(endpoints=two())
    heal = Heal(Flows(world), liveness=Liveness(interval=0.2, timeout=0.1), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await VirtualClock().advance(1.05)
        cut_at = VirtualClock().now()
        world.endpoints["nse-1"].flows = False
        await VirtualClock().advance(0.31)
        assert healed(heal) == (1, 1)
        journal = heal.journals.get(ID)
        assert journal is not None
        (down,) = journal.of(Kind.DOWN)
        assert down.at - cut_at <= 0.3
        assert down.detect is not None
        assert down.detect <= 0.3 + 0.2
        (done,) = journal.of(Kind.HEALED)
        assert done.repair is not None
        assert done.repair < 0.01
        assert done.attempts == 1
        assert "moved to another endpoint" in story(journal)
        await nothing_left(bench)


@virtual_time
async def test_only_so_many_failures_in_a_row_count() -> None:
    world = World(endpoints=two())
    heal = Heal(Flows(world), liveness=Liveness(interval=0.2, timeout=0.1, failures=3), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await VirtualClock().advance(1)
        world.endpoints["nse-1"].flows = False
        await VirtualClock().advance(0.3)
        world.endpoints["nse-1"].flows = True
        await VirtualClock().advance(2)
        assert healed(heal) == (0, 0)
        world.endpoints["nse-1"].flows = False
        await VirtualClock().advance(0.71)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_link_down_is_told_and_nothing_is_polled() -> None:
    world = World(endpoints=two())
    probe = Flows(world, events=True)
    heal = Heal(probe, seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        await VirtualClock().advance(50)
        before = probe.checks
        await VirtualClock().advance(50)
        assert probe.checks == before
        probe.cut("nse-1")
        await settled()
        assert healed(heal) == (1, 1)
        await nothing_left(bench)
        assert not probe.followers


@virtual_time
async def test_a_failed_refresh_hands_over() -> None:
    world = World(life=60.0)
    heal = Heal(Flows(world), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.error = Unavailable("the registry is away")
        await VirtualClock().advance(20)
        assert heal.standing(ID) is not None
        assert Kind.HEALING in kinds(heal)
        world.error = None
        await VirtualClock().advance(6)
        assert healed(heal) == (1, 0)
        assert "close" not in {seen.verb for seen in world.calls}
        # refreshing goes on afterwards
        count = len(world.requests())
        await VirtualClock().advance(60)
        assert len(world.requests()) > count + 2
        await nothing_left(bench)


@virtual_time
async def test_refresh_that_fails_for_good_selects_anew_when_nothing_checks() -> None:
    world = World(endpoints=two(), life=600.0)
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.endpoints["nse-1"].serves = False
        await VirtualClock().advance(130)
        assert healed(heal) == (1, 1)
        plain = [seen for seen in world.requests()[1:] if seen.conn.network_service_endpoint_name == "nse-1"]
        assert len(plain) == 3
        await nothing_left(bench)


@virtual_time
async def test_an_external_success_ends_healing_and_withdraws_the_attempt() -> None:
    world = World(endpoints=two())
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.error = Unavailable("not now")
        world.kill_nse("nse-1")
        await VirtualClock().advance(1)
        standing = heal.standing(ID)
        assert standing is not None
        assert standing.phase is Phase.WAITING
        world.error = None
        world.endpoints["nse-1"].serves = world.endpoints["nse-1"].flows = True
        count = len(world.requests())
        await bench.request(sample_request())
        await VirtualClock().advance(10)
        assert healed(heal)[0] == 1
        assert len(world.requests()) - count <= 2
        await nothing_left(bench)


@virtual_time
async def test_close_during_healing_stops_it() -> None:
    world = World()
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.error = Unavailable("not now")
        world.kill_nse("nse-1")
        await VirtualClock().advance(1)
        world.error = None
        await nothing_left(bench)
        count = len(world.calls)
        await VirtualClock().advance(60)
        assert len(world.calls) == count
        assert kinds(heal)[-1] == Kind.CLOSED


@virtual_time
async def test_an_endpoint_that_comes_late_is_found_without_hammering() -> None:
    world = World()
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.kill_nse("nse-1")
        await VirtualClock().advance(60)
        tries = len(world.requests()) - 1
        assert 10 < tries < 30
        world.endpoints["nse-2"] = Nse(name="nse-2", net=2)
        await VirtualClock().advance(5.1)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_giving_up() -> None:
    world = World()
    heal = Heal(seed=1, policy=Policy(attempts=4), closes=True)
    told: list[Happening] = []
    heal.happenings.told.append(told.append)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.kill_nse("nse-1")
        await VirtualClock().advance(60)
        assert [what.event for what in told] == [Event.UP, Event.DOWN, Event.HEALING, Event.GAVE_UP, Event.CLOSED]
        assert told[-2].attempts == 4
        await nothing_left(bench)


@virtual_time
async def test_refusal_to_be_watched_is_no_death() -> None:
    world = World(endpoints=two(), refuse=PermissionDenied("no monitor for you"))
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await VirtualClock().advance(100)
        assert len(world.requests()) == 1
        assert healed(heal) == (0, 0)
        await nothing_left(bench)


@virtual_time
async def test_no_monitor_at_all() -> None:
    world = World(endpoints=two(), monitor=False)
    heal = Heal(Flows(world), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await VirtualClock().advance(1)
        world.endpoints["nse-1"].flows = False
        await VirtualClock().advance(2)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_echo_of_our_own_reselect_is_no_order() -> None:
    world = World(endpoints=two(), piles=False)
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.kill_nse("nse-1")
        await settled()
        world.say(ID, State.RESELECT_REQUESTED)
        await VirtualClock().advance(10)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_an_order_to_select_anew_is_obeyed() -> None:
    world = World(endpoints=two())
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.endpoints["nse-1"].registered = False
        world.say(ID, State.RESELECT_REQUESTED)
        await settled()
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_upstream_asks_for_a_refresh() -> None:
    world = World()
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()
        world.say(ID, State.REFRESH_REQUESTED)
        await settled()
        assert len(world.requests()) == 2
        assert world.requests()[1].conn.state == State.UP
        await nothing_left(bench)


@virtual_time
async def test_upstream_asks_before_the_first_request_has_returned() -> None:
    world = World()
    heal = Heal(seed=1)
    first = True

    async with rig(*client(world, heal)) as bench:
        await bench.request(sample_request("other"))
        await settled()

        def gate(_: object) -> None:
            nonlocal first
            if first:
                first = False
                bench.runtime.after(0.0, lambda: world.say(ID, State.REFRESH_REQUESTED))

        world.gate = gate
        await bench.request()
        await settled()
        await VirtualClock().advance(0.1)
        assert len(world.requests(ID)) == 2
        await bench.close(sample_request("other").connection)
        await nothing_left(bench)


@virtual_time
async def test_an_endpoint_that_asks_again_and_again_is_slowed_down() -> None:
    world = World()
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await settled()

        def gate(_: object) -> None:
            bench.runtime.after(0.001, lambda: world.say(ID, State.REFRESH_REQUESTED))

        world.gate = gate
        world.say(ID, State.REFRESH_REQUESTED)
        await VirtualClock().advance(60)
        assert len(world.requests()) < 40
        world.gate = None
        await VirtualClock().advance(10)
        await nothing_left(bench)


@virtual_time
async def test_custom_reselect_keeps_the_endpoint_and_changes_labels() -> None:
    world = World(endpoints=two())

    def edit(request: Request) -> None:
        same_endpoint(request)
        request.connection.labels["tier"] = "backup"

    heal = Heal(Flows(world), reselect=edit, seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await VirtualClock().advance(1)
        world.endpoints["nse-1"].flows = False
        world.gate = lambda _: setattr(world.endpoints["nse-1"], "flows", True)
        await VirtualClock().advance(2)
        assert healed(heal) == (1, 0)
        asked = world.requests()[1].conn
        assert asked.network_service_endpoint_name == "nse-1"
        assert asked.labels["tier"] == "backup"
        await nothing_left(bench)


@virtual_time
async def test_happenings_are_a_bounded_stream() -> None:
    world = World(endpoints=two())
    heal = Heal(seed=1)
    async with rig(*client(world, heal)) as bench:
        stream = heal.happenings.stream(ID)
        slow = heal.happenings.stream(ID, waiting=2)
        await bench.request()
        await settled()
        world.kill_nse("nse-1")
        await settled()
        await nothing_left(bench)
        seen = [what async for what in stream]
        events = [what.event for what in seen]
        assert events == [Event.UP, Event.DOWN, Event.HEALING, Event.HEALED, Event.REFRESHED, Event.CLOSED]
        assert seen[3].moved
        assert seen[3].snapshot is not None
        assert seen[3].snapshot.connection().network_service_endpoint_name == "nse-2"
        last = [what async for what in slow]
        assert last[-1].event is Event.CLOSED
        assert last[0].dropped == 4
        assert len(heal.happenings) == 0


@pytest.mark.parametrize("why", ["lost", "down"])
@virtual_time
async def test_both_planes_down(why: str) -> None:
    world = World(endpoints=two())
    heal = Heal(Flows(world), liveness=Liveness(interval=0.2, timeout=0.1), seed=1)
    async with rig(*client(world, heal)) as bench:
        await bench.request()
        await VirtualClock().advance(1)
        if why == "down":
            world.kill_nse("nse-1")
        else:
            world.endpoints["nse-1"].flows = world.endpoints["nse-1"].serves = False
            await world.kill_manager()
            await world.start_manager()
        await VirtualClock().advance(0.35)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)
