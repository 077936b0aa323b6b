# SPDX-License-Identifier: Apache-2.0
"""Any order of joining, damage, restarts, sweeps and closing.

Does:  a state machine drives the datapath on a kernel in memory and compares with what should be there; a request that
       is cancelled at any of its steps leaves nothing.
Place: KernelDatapath, Join under Begin.
State: a folder for the records of each run.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nsm_sdk.api import Connection, Mechanism, Request, policy_route
from nsm_sdk.core import Call, Chain, Next, Runtime
from nsm_sdk.mechanisms import (
    CLIENT_SIDE,
    ENDPOINT_SIDE,
    Join,
    KernelDatapath,
    Observed,
    Tag,
    desired,
    diff,
)
from nsm_sdk.mechanisms.desired import placed
from nsm_sdk.mechanisms.model import Remove, SetLink
from nsm_sdk.mechanisms.ports import Joint, NewEnd
from nsm_sdk.netlink import FakeNamespace, FakeNetlink
from nsm_sdk.testing import Probe, rig, sample_request, virtual_time

A, B, C = (f"file:///run/netns/{name}" for name in "abc")
NO_RUNTIME = Runtime.__new__(Runtime)
_ids = st.integers(1, 3)


def joint(number: int, far: str = B, version: int = 0, near: str = "near") -> Joint:
    conn = Connection(id=f"c-{number}", payload="IP")
    conn.path.path_segments.add(name="nsc", id=f"s-{number}")
    ip = conn.context.ip_context
    ip.src_ip_addrs.extend([f"10.{version}.{number}.1", f"fd00:{number:x}::1"])
    ip.dst_ip_addrs.append(f"10.{version}.{number}.0")
    ip.src_routes.add(prefix="10.99.0.0/16")
    ip.policies.append(policy_route(source=f"10.{version}.{number}.1"))
    ends = [
        Mechanism(type="KERNEL", parameters={"inodeURL": url, "name": f"{side}-{number}"})
        for side, url in ((near, A), ("far", far))
    ]
    return Joint(connection=conn, near=ends[0], far=ends[1])


class Machine(RuleBasedStateMachine):
    """What is joined, by id, against what the kernel has."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.netlink = FakeNetlink()
        self.spaces = {url: self.netlink.add_namespace(url) for url in (A, B, C)}
        self.joined: dict[int, Joint] = {}
        self.unclaimed: set[int] = set()
        self.damaged: set[int] = set()

    def teardown(self) -> None:
        for number in list(self.joined):
            self.part(number)
        assert [link.name for space in self.spaces.values() for link in space.links()] == ["theirs", "theirs"]
        assert not any(space.rules for space in self.spaces.values())
        assert not list(Path(self.folder.name).iterdir())
        self.loop.close()
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        self.netlink.join(
            self.spaces[A],
            NewEnd(name="theirs", mac="02:00:00:00:00:01"),
            self.spaces[B],
            NewEnd(name="theirs", mac="02:00:00:00:00:02"),
        )
        self.restart()

    @rule()
    def restart(self) -> None:
        self.datapath = KernelDatapath(self.netlink, name="f", state=Path(self.folder.name), orphan_timeout=None)
        self.loop.run_until_complete(self.datapath.start(NO_RUNTIME))
        self.unclaimed = set(self.joined)

    @rule(number=_ids, far=st.sampled_from([B, C]), version=st.integers(0, 2), near=st.sampled_from(["near", "other"]))
    def join(self, number: int, far: str, version: int, near: str) -> None:
        wanted = joint(number, far, version, near)
        self.loop.run_until_complete(self.datapath.join(wanted))
        self.joined[number] = wanted
        self.unclaimed.discard(number)
        self.damaged.discard(number)

    @rule(number=_ids)
    def part(self, number: int) -> None:
        self.loop.run_until_complete(self.datapath.part(joint(number).connection))
        for known in (self.unclaimed, self.damaged):
            known.discard(number)
        self.joined.pop(number, None)

    @rule()
    def sweep(self) -> None:
        gone = self.loop.run_until_complete(self.datapath.sweep())
        assert set(gone) == {f"c-{number}" for number in self.unclaimed}
        for number in self.unclaimed:
            del self.joined[number]
            self.damaged.discard(number)
        self.unclaimed.clear()

    @precondition(lambda self: bool(self.joined))
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.joined)))
        space = self.spaces[A]
        link = space.link(name=self.joined[number].near.parameters["name"])
        if link is None:
            return
        self.damaged.add(number)
        what = data.draw(st.sampled_from(["delete", "down", "address", "alias"]))
        if what == "delete":
            space.delete_link(link.index)
        elif what == "down":
            space.apply(link.index, [SetLink(up=False)])
        elif what == "address":
            space.apply(link.index, [Remove(one) for one in space.state[link.index].addresses])
        else:
            space.apply(link.index, [SetLink(alias="")])

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        for number, one in self.joined.items():
            if number not in self.damaged:
                for role, mechanism in ((CLIENT_SIDE, one.near), (ENDPOINT_SIDE, one.far)):
                    tag = Tag(forwarder="f", role=role, segment=one.segment, connection=one.id)
                    want = desired(one.connection, mechanism, tag)
                    seen = see(self.spaces[mechanism.parameters["inodeURL"]], want.name, tag)
                    assert diff(placed(want, seen), seen) == []
        names = {link.name for space in self.spaces.values() for link in space.links()}
        known = {end.parameters["name"] for one in self.joined.values() for end in (one.near, one.far)}
        assert names <= known | {"theirs"}


def see(space: FakeNamespace, name: str, tag: Tag) -> Observed:
    link = space.link(name=name)
    return space.observe(link.index if link is not None else 0, tag.tables if tag.role == CLIENT_SIDE else range(0))


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestMachine = Machine.TestCase


class FarSide(Probe):
    """An endpoint in namespace `b`."""

    async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
        await asyncio.sleep(0)
        request.connection.mechanism.CopyFrom(joint(1).far)
        request.connection.context.CopyFrom(joint(1).connection.context)
        return request.connection


@pytest.mark.parametrize("steps", range(12))
def test_a_request_cancelled_at_any_step_leaves_nothing(steps: int) -> None:
    @virtual_time
    async def run() -> None:
        netlink = FakeNetlink()
        a, b = netlink.add_namespace(A), netlink.add_namespace(B)
        datapath = KernelDatapath(netlink, name="f")
        chain: Chain[Next] = Chain("forwarder", Join(datapath), FarSide())
        request = sample_request()
        request.mechanism_preferences[0].CopyFrom(joint(1).near)
        async with rig(chain) as bench:
            task = asyncio.ensure_future(bench.request(request))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                conn = await task
                await bench.close(conn)
            assert not await bench.left()
        assert not a.links()
        assert not b.links()
        assert not a.rules
        assert not list(datapath.ids())

    run()
