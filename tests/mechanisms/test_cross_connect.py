# SPDX-License-Identifier: Apache-2.0
"""CrossConnect: both ways are joined, also when an interface comes later or again, and nothing stays."""

from __future__ import annotations

import pytest

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.elements import Begin
from nsm_sdk.errors import PermissionDenied
from nsm_sdk.mechanisms import CrossConnect, TranslateMechanism
from nsm_sdk.mechanisms.cross_connect import FIRST_TABLE, PRIORITY
from nsm_sdk.mechanisms.model import Add, Op, SetLink
from nsm_sdk.mechanisms.ports import NewEnd
from nsm_sdk.netlink import FakeNamespace, FakeNetlink
from nsm_sdk.testing import rig, sample_request, settled, virtual_time

INSIDE = "file:///run/netns/fw"


class Answer(Element):
    """The next endpoint: its forwarder has made the interface called `name`."""

    name = "far"

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        request.connection.mechanism.CopyFrom(Mechanism(type="KERNEL", parameters={"name": self.name}))
        return request.connection


def asked() -> Request:
    request = sample_request()
    request.connection.mechanism.CopyFrom(Mechanism(type="KERNEL", parameters={"name": "near"}))
    return request


class Machine:
    """A namespace, and another one for the other ends."""

    def __init__(self) -> None:
        self.netlink = FakeNetlink()
        self.inside = self.netlink.add_namespace(INSIDE)
        self.other = self.netlink.add_namespace("file:///run/netns/other")
        self._made = 0

    def make(self, name: str) -> int:
        self._made += 1
        a, b = NewEnd(name=name, mac=""), NewEnd(name=f"peer-{self._made}", mac="")
        index, peer = self.netlink.join(self.inside, a, self.other, b)
        self.inside.apply(index, [SetLink(up=False), SetLink(up=True)])
        self.other.apply(peer, [SetLink(up=True)])
        return index

    def ways(self) -> dict[str, int]:
        """By which interface what comes in by another leaves, where rule and route are there in both families."""
        found: dict[str, set[tuple[int, int]]] = {}
        for rule in self.inside.rules:
            assert rule.priority == PRIORITY
            for index, seen in self.inside.state.items():
                if any(route.table == rule.table and route.family == rule.family for route in seen.routes):
                    found.setdefault(rule.enters, set()).add((rule.family, index))
        return {
            name: next(iter({at for _, at in ways})) for name, ways in found.items() if {f for f, _ in ways} == {4, 6}
        }


@virtual_time
async def test_what_comes_in_by_one_leaves_by_the_other() -> None:
    machine = Machine()
    far = machine.make("far")
    async with rig(Begin(), CrossConnect(machine.netlink, namespace=INSIDE), TranslateMechanism(), Answer()) as bench:
        await bench.request(asked())
        assert machine.ways() == {"near": far}
        near = machine.make("near")
        await settled()
        assert machine.ways() == {"near": far, "far": near}
        assert machine.inside.forwarding == {"near", "far"}
        await bench.request(asked())
        assert machine.ways() == {"near": far, "far": near}
        await bench.close()
        assert machine.inside.rules == set()
        assert not await bench.left()


@virtual_time
async def test_an_interface_that_is_made_again_is_joined_again() -> None:
    machine = Machine()
    far = machine.make("far")
    near = machine.make("near")
    async with rig(Begin(), CrossConnect(machine.netlink, namespace=INSIDE), TranslateMechanism(), Answer()) as bench:
        await bench.request(asked())
        assert machine.ways() == {"near": far, "far": near}
        machine.inside.delete_link(near)
        again = machine.make("near")
        await settled()
        assert machine.ways() == {"near": far, "far": again}
        assert {rule.table for rule in machine.inside.rules} == {FIRST_TABLE + far, FIRST_TABLE + again}
        await bench.close()
        assert machine.inside.rules == set()


@virtual_time
async def test_another_far_interface_takes_the_place_of_the_former() -> None:
    machine, answer = Machine(), Answer()
    machine.make("far")
    near = machine.make("near")
    async with rig(Begin(), CrossConnect(machine.netlink, namespace=INSIDE), TranslateMechanism(), answer) as bench:
        await bench.request(asked())
        answer.name = "far-2"
        other = machine.make("far-2")
        await bench.request(asked())
        assert machine.ways() == {"near": other, "far-2": near}
        await bench.close()
        assert machine.inside.rules == set()


@virtual_time
async def test_who_may_not_change_the_namespace_reads_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.make("far")

    def refuse(self: FakeNamespace, names: object) -> None:
        raise PermissionDenied("the kernel says no")

    monkeypatch.setattr(FakeNamespace, "forward", refuse)
    async with rig(Begin(), CrossConnect(machine.netlink, namespace=INSIDE), TranslateMechanism(), Answer()) as bench:
        with pytest.raises(PermissionDenied, match="cannot pass from near to far: the kernel says no") as caught:
            await bench.request(asked())
        assert "CAP_NET_ADMIN" in caught.value.hint
        assert machine.inside.rules == set()


@virtual_time
async def test_a_machine_without_ipv6_passes_what_it_has() -> None:
    machine = Machine()

    def refuse(op: Op) -> int:
        return 97 if isinstance(op, Add) and getattr(op.thing, "family", 4) == 6 else 0

    machine.inside.refuse = refuse
    machine.make("far")
    async with rig(Begin(), CrossConnect(machine.netlink, namespace=INSIDE), TranslateMechanism(), Answer()) as bench:
        await bench.request(asked())
        assert {rule.family for rule in machine.inside.rules} == {4}
        await bench.close()
