# SPDX-License-Identifier: Apache-2.0
"""What happens to a joined connection over time: repair, restart, orphans, close, leaks.

Does:  damages interfaces by hand, restarts the datapath on its records, removes namespaces, repeats often.
Place: KernelDatapath with a real kernel.
State: namespaces of one test.
"""

from __future__ import annotations

import json
import os
import stat

import pytest

from nsm_sdk.api import Connection, policy_route
from nsm_sdk.mechanisms import CLIENT_SIDE, Address, Tag
from nsm_sdk.mechanisms.model import Add, Remove, SetLink
from nsm_sdk.mechanisms.ports import NewEnd
from nsm_sdk.netlink import KernelAdapter, namespace_url
from tests.datapath.conftest import World, apply_to

pytestmark = pytest.mark.netns


def by_hand(world: World, near: NewEnd, far: NewEnd, alias: str = "") -> None:
    """A pair between the two namespaces that no datapath knows of."""
    kernel = KernelAdapter(open_ping=False)
    try:
        a, b = kernel.open(namespace_url(world.a)), kernel.open(namespace_url(world.b))
        index, _ = kernel.join(a, near, b, far)
        if alias:
            assert not a.apply(index, [SetLink(alias=alias)])
    finally:
        kernel.close()


async def test_a_refresh_changes_nothing(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    await datapath.join(joint)
    before = world.see(world.a, "near-1"), world.see(world.b, "far-1")
    for _ in range(3):
        await datapath.join(joint)
    assert (world.see(world.a, "near-1"), world.see(world.b, "far-1")) == before


async def test_a_refresh_repairs_what_was_deleted(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    await datapath.join(joint)
    world.delete(world.b, "far-1")
    assert not world.links(world.a)
    await datapath.join(joint)
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")


@pytest.mark.parametrize(
    "damage",
    [
        Remove(Address("172.16.1.1", 32)),
        Remove(Address("fd00:1::1", 128)),
        SetLink(up=False),
        SetLink(mtu=1300),
        SetLink(mac="02:11:22:33:44:55"),
        SetLink(name="renamed"),
        Add(Address("172.16.1.1", 24)),
    ],
    ids=str,
)
async def test_a_refresh_repairs_what_was_changed(world: World, damage: Add | Remove | SetLink) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    joint.connection.context.MTU = 1450
    joint.connection.context.ip_context.src_routes.add(prefix="10.0.0.0/8")
    await datapath.join(joint)
    whole = world.see(world.a, "near-1")
    apply_to(world.a, "near-1", damage)
    await datapath.join(joint)
    seen = world.see(world.a, "near-1")
    assert (seen.addresses, seen.routes) == (whole.addresses, whole.routes)
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")
    assert world.ping(world.a, "fd00:1::1", "fd00:1::")


async def test_what_others_added_to_our_interface_stays(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    await datapath.join(joint)
    theirs = Address("192.0.2.7", 32, ours=False)
    apply_to(world.a, "near-1", Add(theirs))
    await datapath.join(joint)
    assert theirs in world.see(world.a, "near-1").addresses


async def test_an_endpoint_that_moves_takes_the_connection_along(world: World) -> None:
    datapath = await world.datapath()
    await datapath.join(world.joint(1))
    other = world.namespace()
    await datapath.join(world.joint(1, b=other))
    assert not world.links(world.b)
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")
    await datapath.join(world.joint(1, b=other, near="other"))
    assert set(world.links(world.a)) == {"other"}


async def test_close_removes_and_may_be_repeated(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    keep = world.joint(2)
    await datapath.join(joint)
    await datapath.join(keep)
    for _ in range(2):
        await datapath.part(joint.connection)
        assert set(world.links(world.a)) == {"near-2"}
        assert list(datapath.ids()) == ["fwd-2"]
    assert world.ping(world.a, "172.16.2.1", "172.16.2.0")


@pytest.mark.parametrize("gone", ["a", "b", "both"])
async def test_close_with_a_namespace_gone(world: World, gone: str) -> None:
    datapath, joint = await world.datapath(idle=0.05), world.joint(1)
    await datapath.join(joint)
    for name in (world.a, world.b) if gone == "both" else (getattr(world, gone),):
        world.drop(name)
    await datapath.part(joint.connection)
    assert not list(datapath.ids())
    assert not world.records()
    for name in {"a": [world.b], "b": [world.a], "both": []}[gone]:
        assert not world.links(name)


async def test_close_of_an_unknown_connection_touches_nothing(world: World) -> None:
    datapath = await world.datapath()
    await datapath.join(world.joint(1))
    stranger = Connection(id="never-heard-of")
    stranger.mechanism.parameters["inodeURL"] = namespace_url(world.a)
    await datapath.part(stranger)
    await datapath.part(Connection(id="no-mechanism"))
    assert set(world.links(world.a)) == {"near-1"}


async def test_close_without_records_finds_its_own_by_tag(world: World) -> None:
    joint = world.joint(1)
    await (await world.datapath()).join(joint)
    forgetful = await world.datapath(records=False)
    conn = joint.connection
    conn.mechanism.CopyFrom(joint.near)
    await forgetful.part(conn)
    assert not world.links(world.a)


async def test_a_restarted_forwarder_adopts_what_lives(world: World) -> None:
    joint = world.joint(1)
    joint.connection.context.ip_context.policies.append(policy_route(source="172.16.1.1"))
    await (await world.datapath()).join(joint)
    before = world.see(world.a, "near-1"), world.see(world.b, "far-1")
    fresh = await world.datapath()
    assert list(fresh.ids()) == ["fwd-1"]
    await fresh.join(joint)
    assert (world.see(world.a, "near-1"), world.see(world.b, "far-1")) == before
    assert await fresh.sweep() == []
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")


async def test_without_its_records_it_adopts_by_tag(world: World) -> None:
    joint = world.joint(1)
    await (await world.datapath()).join(joint)
    before = world.links(world.a)
    forgetful = await world.datapath(records=False)
    await forgetful.join(joint)
    assert world.links(world.a) == before


async def test_a_pair_without_its_alias_is_known_by_its_mac(world: World) -> None:
    """A forwarder that was killed between making a pair and naming it."""
    near, far = (
        Tag(forwarder="fwd", role=role, segment="nsc-1", connection="fwd-1") for role in (CLIENT_SIDE, "client")
    )
    by_hand(world, NewEnd(name="near-1", mac=near.mac), NewEnd(name="far-1", mac=far.mac))
    index = world.links(world.a)["near-1"].index
    await (await world.datapath()).join(world.joint(1))
    link = world.links(world.a)["near-1"]
    assert (link.index, link.alias) == (index, near.alias)
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")


async def test_a_leftover_of_the_same_client_makes_way(world: World) -> None:
    """The client is the same, the id at the forwarder is not: its records and its secret are gone."""
    old = Tag(forwarder="fwd", role=CLIENT_SIDE, segment="nsc-1", connection="an-earlier-id")
    by_hand(world, NewEnd(name="near-1", mac=old.mac), NewEnd(name="old-far", mac="02:00:00:00:00:01"), old.alias)
    await (await world.datapath()).join(world.joint(1))
    assert set(world.links(world.b)) == {"far-1"}
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")


async def test_orphans_go_and_others_stay(world: World) -> None:
    first = await world.datapath()
    joints = [world.joint(1), world.joint(2)]
    joints[1].connection.context.ip_context.policies.append(policy_route(source="172.16.2.1"))
    for joint in joints:
        await first.join(joint)
    made = Tag(forwarder="fwd", role=CLIENT_SIDE, segment="x", connection="by-hand")
    foreign = Tag(forwarder="another", role=CLIENT_SIDE, segment="x", connection="by-hand")
    by_hand(world, NewEnd(name="hand", mac=made.mac), NewEnd(name="hand", mac="02:00:00:00:00:02"), made.alias)
    by_hand(world, NewEnd(name="other", mac=foreign.mac), NewEnd(name="other", mac="02:00:00:00:00:03"), foreign.alias)
    by_hand(world, NewEnd(name="plain", mac="02:00:00:00:00:04"), NewEnd(name="plain", mac="02:00:00:00:00:05"))
    fresh = await world.datapath()
    await fresh.join(joints[0])
    assert sorted(await fresh.sweep()) == ["by-hand", "fwd-2"]
    assert set(world.links(world.a)) == {"near-1", "other", "plain"}
    assert set(world.links(world.b)) == {"far-1", "other", "plain"}
    tables = Tag(forwarder="fwd", role=CLIENT_SIDE, segment="nsc-2", connection="fwd-2").tables
    assert not world.see(world.a, "near-1", tables).rules
    assert await fresh.sweep() == []
    assert list(fresh.ids()) == ["fwd-1"]


async def test_rules_of_an_orphan_whose_links_are_gone(world: World) -> None:
    joint = world.joint(1)
    joint.connection.context.ip_context.policies.append(policy_route(source="172.16.1.1"))
    await (await world.datapath()).join(joint)
    world.delete(world.a, "near-1")
    tables = Tag(forwarder="fwd", role=CLIENT_SIDE, segment="nsc-1", connection="fwd-1").tables
    assert world.see(world.a, "", tables).rules
    fresh = await world.datapath()
    assert await fresh.sweep() == ["fwd-1"]
    assert not world.see(world.a, "", tables).rules


async def test_records_are_private_and_odd_files_are_left_alone(world: World) -> None:
    await (await world.datapath()).join(world.joint(1))
    datapath = await world.datapath()
    await datapath.join(world.joint(1))
    [path] = world.records()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.folder.stat().st_mode) == 0o700
    assert json.loads(path.read_text())["connection"] == "fwd-1"
    odd = world.folder / "odd.json"
    odd.write_text('{"version": 1, "ends": 3}')
    (world.folder / "half.tmp").write_text("{")
    fresh = await world.datapath()
    assert list(fresh.ids()) == ["fwd-1"]
    assert sorted(one.name for one in world.records()) == sorted([path.name, "odd.json"])


async def test_two_hundred_cycles_leave_nothing(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    joint.connection.context.ip_context.policies.append(policy_route(source="172.16.1.1"))
    tables = Tag(forwarder="fwd", role=CLIENT_SIDE, segment="nsc-1", connection="fwd-1").tables
    await datapath.join(joint)
    await datapath.part(joint.connection)
    held = len(os.listdir("/proc/self/fd"))
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(200):
        await datapath.join(joint)
        await datapath.part(joint.connection)
    assert len(os.listdir("/proc/self/fd")) == held
    assert len(os.listdir("/proc/self/task")) == threads
    assert not world.links(world.a)
    assert not world.links(world.b)
    assert not world.see(world.a, "", tables).rules
    assert not world.records()
