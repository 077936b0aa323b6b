# SPDX-License-Identifier: Apache-2.0
"""The kernel in memory behaves like the real one where a datapath can tell.

Does:  runs the same life of connections through the datapath on the fake, in virtual time, and then breaks things.
Place: FakeNetlink, KernelDatapath.
State: none.
"""

from __future__ import annotations

import asyncio
import errno

import pytest

from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.errors import AlreadyExists, FailedPrecondition
from nsm_sdk.mechanisms import Address, KernelDatapath
from nsm_sdk.mechanisms.model import Add, Op, Remove, SetLink
from nsm_sdk.mechanisms.ports import Joint
from nsm_sdk.netlink import FakeNamespace, FakeNetlink
from nsm_sdk.testing import virtual_time

A, B = "file:///run/netns/a", "file:///run/netns/b"


def joint(number: int = 1, *, name: str = "") -> Joint:
    conn = Connection(id=f"c-{number}", payload="IP")
    conn.path.path_segments.add(name="nsc", id=f"s-{number}")
    conn.context.ip_context.src_ip_addrs.extend([f"10.0.{number}.1", f"fd00:{number:x}::1"])
    conn.context.ip_context.dst_ip_addrs.extend([f"10.0.{number}.0", f"fd00:{number:x}::"])
    near, far = (
        Mechanism(type="KERNEL", parameters={"inodeURL": url, "name": name or f"{side}-{number}"})
        for side, url in (("near", A), ("far", B))
    )
    return Joint(connection=conn, near=near, far=far)


def world() -> tuple[FakeNetlink, FakeNamespace, FakeNamespace, KernelDatapath]:
    netlink = FakeNetlink()
    return netlink, netlink.add_namespace(A), netlink.add_namespace(B), KernelDatapath(netlink, name="f")


@virtual_time
async def test_join_refresh_repair_part() -> None:
    _, a, b, datapath = world()
    await datapath.join(joint())
    before = dict(a.state)
    await datapath.join(joint())
    assert a.state == before
    [link] = a.links()
    assert (link.up, link.carrier, link.alias) == (True, True, "nsm:f:server:s-1:c-1")
    a.apply(link.index, [Remove(Address("10.0.1.1", 32))])
    assert not [route for route in a.state[link.index].routes if route.family == 4]
    await datapath.join(joint())
    assert a.state == before
    assert b.delete_link(b.links()[0].index)
    assert not a.links()
    await datapath.join(joint())
    assert len(a.links()) == len(b.links()) == 1
    await datapath.part(joint().connection)
    assert not a.links()
    assert not b.links()


@virtual_time
async def test_errors_are_those_of_the_real_one() -> None:
    netlink, a, b, datapath = world()
    await datapath.join(joint(1, name="nsm-1"))
    with pytest.raises(AlreadyExists, match="nsm-1"):
        await datapath.join(joint(2, name="nsm-1"))
    netlink.remove_namespace(B)
    assert not a.links()
    with pytest.raises(FailedPrecondition, match="is gone"):
        await datapath.join(joint())
    await datapath.part(joint().connection)
    assert not list(b.links())
    with pytest.raises(FailedPrecondition):
        netlink.open("/run/netns/never")
    assert FakeNetlink(create=True).open("/run/netns/never").links() == []


@virtual_time
async def test_a_kernel_that_refuses() -> None:
    _, a, _, datapath = world()

    def refuse(op: Op) -> int:
        return errno.EINVAL if isinstance(op, Add) and op.thing == Address("fd00:1::1", 128) else 0

    a.refuse = refuse
    with pytest.raises(FailedPrecondition, match=r"fd00:1::1.*EINVAL"):
        await datapath.join(joint())
    await datapath.part(joint().connection)
    assert not a.links()


@virtual_time
async def test_events() -> None:
    netlink, a, b, datapath = world()
    watch = await netlink.watch(A)
    await datapath.join(joint())
    [far] = b.links()
    b.apply(far.index, [SetLink(up=False)])
    netlink.remove_namespace(B)
    await watch.aclose()
    kinds = [event.kind async for event in watch]
    assert kinds == ["address-added", "address-added", "up", "down", "deleted"]
    assert not a.watches


@virtual_time
async def test_a_waiting_reader_is_woken() -> None:
    netlink, a, _, datapath = world()
    watch = await netlink.watch(A)
    reader = asyncio.ensure_future(watch.__anext__())
    await datapath.join(joint())
    assert (await reader).kind == "address-added"
    await watch.aclose()
    assert not a.watches
