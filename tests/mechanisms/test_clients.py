# SPDX-License-Identifier: Apache-2.0
"""Which client an interface belongs to: the same one that comes back, another one of its name, one that is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.api.path import set_expiry
from nsm_sdk.core import Role
from nsm_sdk.errors import AlreadyExists
from nsm_sdk.mechanisms import KernelDatapath
from nsm_sdk.mechanisms.ports import Joint
from nsm_sdk.netlink import FakeNetlink
from nsm_sdk.testing import current_clock, virtual_time

A, B, END = "file:///run/netns/a", "file:///run/netns/b", "file:///run/netns/end"
LIFE = 60.0


class World:
    """A kernel in memory with two clients' namespaces and an endpoint's, and a forwarder that can be started again."""

    def __init__(self, state: Path) -> None:
        self.netlink = FakeNetlink()
        self.a, self.b, self.end = (self.netlink.add_namespace(url) for url in (A, B, END))
        self.state = state

    def datapath(self) -> KernelDatapath:
        return KernelDatapath(self.netlink, name="f", state=self.state, orphan_timeout=600.0)

    def links(self) -> list[list[str]]:
        return [sorted(link.name for link in space.links()) for space in (self.a, self.b, self.end)]


def joint(
    id: str,
    *,
    near: str = A,
    name: str = "nsm-1",
    far: str = "far",
    first: str = "nsc-0",
    client: str = "nsc",
    index: int = 2,
    source: str = "10.0.0.1/32",
    target: str = "10.0.0.0/32",
    life: float = LIFE,
) -> Joint:
    conn = Connection(id=id, payload="IP")
    conn.path.path_segments.add(name=client, id=first)
    set_expiry(conn.path.path_segments[0], current_clock().wall() + life)
    conn.path.index = index
    conn.context.ip_context.src_ip_addrs.append(source)
    conn.context.ip_context.dst_ip_addrs.append(target)
    ends = [
        Mechanism(type="KERNEL", parameters={"inodeURL": url, "name": called})
        for url, called in ((near, name), (END, far))
    ]
    conn.mechanism.CopyFrom(ends[0])
    return Joint(connection=conn, near=ends[0], far=ends[1])


@virtual_time
async def test_the_same_client_under_another_id_replaces_what_it_left(tmp_path: Path) -> None:
    world = World(tmp_path)
    datapath = world.datapath()
    async with Role("f", services=[datapath]).serving(clock=current_clock()):
        assert await datapath.join(joint("old")) == []
        again = joint("new", far="far-2")
        assert await datapath.admit(again.connection) == ["old"]
        assert world.links() == [["nsm-1"], [], ["far"]]
        assert await datapath.join(again) == ["old"]
        assert world.links() == [["nsm-1"], [], ["far-2"]]
        assert list(datapath.ids()) == ["new"]
        # Closing what was replaced touches nothing.
        await datapath.part(joint("old").connection)
        assert world.links() == [["nsm-1"], [], ["far-2"]]
        assert await datapath.join(again) == []


@virtual_time
async def test_so_it_does_after_a_restart_and_under_another_interface_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second = world.datapath(), world.datapath()
    async with Role("f", services=[first]).serving(clock=current_clock()):
        await first.join(joint("old"))
    async with Role("f", services=[second]).serving(clock=current_clock()):
        assert await second.join(joint("new", name="other", far="far-2")) == ["old"]
        assert world.links() == [["other"], [], ["far-2"]]


@virtual_time
@pytest.mark.parametrize("id", ["same", "another"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_second_client_of_a_living_ones_name_is_refused(id: str, restarted: bool, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.a.residents = 1
    datapath = world.datapath()
    async with Role("f", services=[datapath]).serving(clock=current_clock()):
        await datapath.join(joint("same"))
    datapath = world.datapath() if restarted else datapath
    async with Role("f", services=[datapath]).serving(clock=current_clock()):
        before = world.a.links()
        second = joint(id, near=B, far="far-2")
        for _ in range(2):
            with pytest.raises(AlreadyExists, match=r"'nsc' lives in network namespace file:///run/netns/a") as refused:
                await datapath.admit(second.connection)
            assert "NSM_NAME" in refused.value.hint
            with pytest.raises(AlreadyExists, match="'nsc' lives in"):
                await datapath.join(second)
        assert world.a.links() == before
        assert world.links() == [["nsm-1"], [], ["far"]]
        assert await datapath.join(joint("same")) == []
        assert world.a.links() == before


@virtual_time
@pytest.mark.parametrize("id", ["same", "another"])
@pytest.mark.parametrize("left", ["empty", "gone", "not refreshed"])
async def test_one_that_left_or_was_not_refreshed_is_replaced(id: str, left: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    datapath = world.datapath()
    async with Role("f", services=[datapath]).serving(clock=current_clock()):
        await datapath.join(joint("same"))
        if left == "gone":
            world.netlink.remove_namespace(A)
        elif left == "not refreshed":
            world.a.residents = 1
            await asyncio.sleep(LIFE + 1)
        second = joint(id, near=B, far="far-2")
        replaced = [] if id == "same" else ["same"]
        assert await datapath.admit(second.connection) == replaced
        assert await datapath.join(second) == replaced
        assert world.links() == [[], ["nsm-1"], ["far-2"]]


@virtual_time
@pytest.mark.parametrize("other", [{"client": "another"}, {"first": "nsc-1"}, {"index": 5}])
async def test_other_clients_and_other_passages_of_one_path_do_not_meet(
    other: dict[str, str | int], tmp_path: Path
) -> None:
    world = World(tmp_path)
    world.a.residents = world.b.residents = 1
    datapath = world.datapath()
    async with Role("f", services=[datapath]).serving(clock=current_clock()):
        await datapath.join(joint("one"))
        second = joint("two", near=B, far="far-2", source="10.0.0.3/32", target="10.0.0.2/32", **other)  # type: ignore[arg-type]
        assert await datapath.admit(second.connection) == []
        assert await datapath.join(second) == []
        assert world.links() == [["nsm-1"], ["nsm-1"], ["far", "far-2"]]


@virtual_time
@pytest.mark.parametrize(
    ("source", "target", "makes_way"),
    [
        ("10.0.0.1/32", "10.0.0.0/32", True),
        ("10.0.0.2/32", "10.0.0.1/32", True),
        ("10.0.0.0/32", "10.0.0.9/32", True),
        ("10.0.0.2/32", "10.0.0.0/32", False),
        ("10.0.0.3/32", "10.0.0.2/32", False),
    ],
)
async def test_what_an_earlier_run_left_makes_way_for_who_has_its_addresses_now(
    source: str, target: str, makes_way: bool, tmp_path: Path
) -> None:
    world = World(tmp_path)
    first, second = world.datapath(), world.datapath()
    async with Role("f", services=[first]).serving(clock=current_clock()):
        await first.join(joint("old"))
    async with Role("f", services=[second]).serving(clock=current_clock()):
        new = joint("new", near=B, far="far-2", first="b-0", client="b", source=source, target=target)
        assert await second.join(new) == []
        assert world.links() == ([[], ["nsm-1"], ["far-2"]] if makes_way else [["nsm-1"], ["nsm-1"], ["far", "far-2"]])


@virtual_time
async def test_what_somebody_has_claimed_does_not_make_way(tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second = world.datapath(), world.datapath()
    async with Role("f", services=[first]).serving(clock=current_clock()):
        await first.join(joint("old"))
    async with Role("f", services=[second]).serving(clock=current_clock()):
        assert second.claim("old") is not None
        await second.join(joint("new", near=B, far="far-2", first="b-0", client="b"))
        assert world.links() == [["nsm-1"], ["nsm-1"], ["far", "far-2"]]


@virtual_time
@pytest.mark.parametrize("claimed", [False, True])
async def test_whose_time_ended_while_the_forwarder_was_away(claimed: bool, tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second = world.datapath(), world.datapath()
    async with Role("f", services=[first]).serving(clock=current_clock()):
        await first.join(joint("old"))
        await first.join(
            joint(
                "fresh",
                near=B,
                first="b-0",
                client="b",
                far="far-2",
                source="10.0.0.3",
                target="10.0.0.2",
                life=10 * LIFE,
            )
        )
    await asyncio.sleep(LIFE + 1)
    async with Role("f", services=[second]).serving(clock=current_clock()):
        await asyncio.sleep(10)
        assert world.links() == [["nsm-1"], ["nsm-1"], ["far", "far-2"]]
        if claimed:
            await second.join(joint("old"))
        await asyncio.sleep(10)
        assert world.links() == ([["nsm-1"], ["nsm-1"], ["far", "far-2"]] if claimed else [[], ["nsm-1"], ["far-2"]])
