# SPDX-License-Identifier: Apache-2.0
"""Joining two namespaces: packets pass, and everything is as the connection says.

Does:  addresses, routes, neighbours, MTU, policy routes, of both families, on real interfaces.
Place: KernelDatapath with a real kernel.
State: namespaces of one test.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from nsm_sdk.api import Route as RouteMessage
from nsm_sdk.api import policy_route
from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest
from nsm_sdk.mechanisms import CLIENT_SIDE, ENDPOINT_SIDE, Address, Neighbour, Route, Rule, Tag
from nsm_sdk.mechanisms.model import Add
from nsm_sdk.netlink import run_inside
from tests.datapath.conftest import World, apply_to

pytestmark = pytest.mark.netns


def tag(number: int, role: str = CLIENT_SIDE) -> Tag:
    return Tag(forwarder="fwd", role=role, segment=f"nsc-{number}", connection=f"fwd-{number}")


@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
async def test_packets_pass_both_ways_in_both_families(world: World, payload: str) -> None:
    await (await world.datapath()).join(world.joint(1, payload=payload))
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")
    assert world.ping(world.b, "172.16.1.0", "172.16.1.1")
    assert world.ping(world.a, "fd00:1::1", "fd00:1::")
    assert world.ping(world.b, "fd00:1::", "fd00:1::1")


async def test_links_carry_their_tags(world: World) -> None:
    await (await world.datapath()).join(world.joint(1))
    near, far = world.links(world.a)["near-1"], world.links(world.b)["far-1"]
    assert (near.alias, near.mac) == (tag(1).alias, tag(1).mac)
    assert (far.alias, far.mac) == (tag(1, ENDPOINT_SIDE).alias, tag(1, ENDPOINT_SIDE).mac)
    assert (near.peer, far.peer) == (far.index, near.index)
    assert near.alias == "nsm:fwd:server:nsc-1:fwd-1"


async def test_both_ends_may_have_one_name(world: World) -> None:
    await (await world.datapath()).join(world.joint(1, near="nsm-1", far="nsm-1"))
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0")


async def test_both_ends_in_one_namespace(world: World) -> None:
    await (await world.datapath()).join(world.joint(1, b=world.a))
    assert set(world.links(world.a)) == {"near-1", "far-1"}


async def test_mtu_routes_and_neighbours(world: World) -> None:
    joint = world.joint(1)
    context = joint.connection.context
    context.MTU = 1400
    context.ip_context.src_routes.add(prefix="10.7.0.0/16")
    context.ip_context.src_routes.add(prefix="fd07::/32", nextHop="fd00:1::")
    context.ip_context.src_routes.add(prefix="0.0.0.0/0")
    context.ip_context.ip_neighbors.add(ip="10.7.0.9", hardware_address="02:00:00:00:00:09")
    await (await world.datapath()).join(joint)
    seen = world.see(world.a, "near-1")
    assert seen.link is not None
    assert seen.link.mtu == 1400
    assert seen.routes >= {
        Route(dst="172.16.1.0", prefix=32),
        Route(dst="fd00:1::", prefix=128, metric=tag(1).metric),
        Route(dst="10.7.0.0", prefix=16, gateway="172.16.1.0"),
        Route(dst="0.0.0.0", prefix=0, gateway="172.16.1.0"),
        Route(dst="fd07::", prefix=32, gateway="fd00:1::", metric=tag(1).metric),
    }
    assert seen.neighbours >= {
        Neighbour("10.7.0.9", "02:00:00:00:00:09"),
        Neighbour("172.16.1.0", tag(1, ENDPOINT_SIDE).mac, permanent=True),
        Neighbour("fd00:1::", tag(1, ENDPOINT_SIDE).mac, permanent=True),
    }
    assert world.ping(world.a, "172.16.1.1", "172.16.1.0", size=1400 - 28)
    assert not world.ping(world.a, "172.16.1.1", "172.16.1.0", size=1400, timeout=0.2)


async def test_an_address_with_its_own_prefix(world: World) -> None:
    joint = world.joint(1)
    ip = joint.connection.context.ip_context
    del ip.src_ip_addrs[:]
    del ip.dst_ip_addrs[:]
    ip.src_ip_addrs.extend(["192.168.5.2/24", "fd05::2/64"])
    ip.dst_ip_addrs.extend(["192.168.5.1/24", "fd05::1/64"])
    await (await world.datapath()).join(joint)
    assert Address("192.168.5.2", 24) in world.see(world.a, "near-1").addresses
    assert world.ping(world.a, "192.168.5.2", "192.168.5.1")
    assert world.ping(world.a, "fd05::2", "fd05::1")


async def test_policy_routes_of_both_families_come_change_and_go(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    policies = joint.connection.context.ip_context.policies
    policies.append(policy_route(source="172.16.1.1/32", proto="6", dst_port="6666"))
    policies.append(policy_route(source="fd00:1::1", proto="17", src_port="1-1024"))
    policies.append(policy_route(dst_port="80", routes=[RouteMessage(prefix="10.9.0.0/16", nextHop="172.16.1.0")]))
    await datapath.join(joint)
    tables = tag(1).tables
    first, second, third = tables[:3]
    assert world.see(world.a, "near-1", tables).rules == {
        Rule(family=4, priority=10_000, table=first, src="172.16.1.1", src_prefix=32, proto=6, dport=(6666, 6666)),
        Rule(family=6, priority=10_001, table=second, src="fd00:1::1", src_prefix=128, proto=17, sport=(1, 1024)),
        Rule(family=4, priority=10_002, table=third, dport=(80, 80)),
    }
    routes = {route for route in world.see(world.a, "near-1").routes if route.table in tables}
    assert routes == {
        Route(dst="0.0.0.0", prefix=0, gateway="172.16.1.0", table=first),
        Route(dst="::", prefix=0, gateway="fd00:1::", table=second, metric=tag(1).metric),
        Route(dst="10.9.0.0", prefix=16, gateway="172.16.1.0", table=third),
    }
    assert not world.see(world.b, "far-1", tables).rules
    del policies[1:]
    policies[0].routes.add(prefix="10.8.0.0/16")
    await datapath.join(joint)
    assert len(world.see(world.a, "near-1", tables).rules) == 1
    left = {route for route in world.see(world.a, "near-1").routes if route.table in tables}
    assert left == {Route(dst="10.8.0.0", prefix=16, gateway="172.16.1.0", table=first)}
    await datapath.part(joint.connection)
    assert not world.see(world.a, "near-1", tables).rules


@pytest.mark.parametrize(("default", "gateway"), [("0.0.0.0", "10.77.0.1"), ("::", "fd77::1")])
async def test_a_default_route_of_others_comes_back(world: World, default: str, gateway: str) -> None:
    """The pod had a default route before; the service takes over while it lasts."""
    await (await world.datapath(name="cni", records=False)).join(world.joint(7))
    theirs = Route(dst=default, prefix=0, gateway=gateway, metric=1024 if ":" in default else 0, ours=False)
    apply_to(world.a, "near-7", Add(theirs))
    datapath, joint = await world.datapath(), world.joint(1)
    joint.connection.context.ip_context.src_routes.add(prefix=f"{default}/0")
    ours = Route(dst=default, prefix=0, gateway="fd00:1::" if ":" in default else "172.16.1.0")
    ours = replace(ours, metric=tag(1).metric if ":" in default else 0)
    for _ in range(2):
        await datapath.join(joint)
        assert theirs in world.see(world.a, "near-7").routes
        assert ours in world.see(world.a, "near-1").routes
    del joint.connection.context.ip_context.src_routes[:]
    joint.connection.context.ip_context.src_routes.add(prefix=f"{default}/0", nextHop=gateway)
    await datapath.join(joint)
    seen = world.see(world.a, "near-1").routes
    assert replace(ours, gateway=gateway) in seen
    assert ours not in seen
    await datapath.part(joint.connection)
    assert theirs in world.see(world.a, "near-7").routes


async def test_two_connections_may_have_the_same_routes(world: World) -> None:
    datapath = await world.datapath()
    joints = [world.joint(1), world.joint(2)]
    for joint in joints:
        joint.connection.context.ip_context.src_routes.add(prefix="10.7.0.0/16")
        joint.connection.context.ip_context.src_routes.add(prefix="fd07::/32")
    for joint in joints * 2:
        await datapath.join(joint)
    before = [world.see(world.a, f"near-{number}").routes for number in (1, 2)]
    assert all({route.dst for route in routes} >= {"10.7.0.0", "fd07::"} for routes in before)
    await datapath.part(joints[1].connection)
    assert world.see(world.a, "near-1").routes == before[0]


async def test_addresses_do_not_pile_up(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    await datapath.join(joint)
    index = world.links(world.a)["near-1"].index
    ip = joint.connection.context.ip_context
    del ip.src_ip_addrs[:]
    ip.src_ip_addrs.extend(["172.16.99.1/32", "fd99::1"])
    await datapath.join(joint)
    seen = world.see(world.a, "near-1")
    assert seen.addresses == {Address("172.16.99.1", 32), Address("fd99::1", 128)}
    assert seen.link is not None
    assert seen.link.index == index
    assert world.ping(world.b, "172.16.1.0", "172.16.99.1")


async def test_a_taken_name_is_refused_and_left_alone(world: World) -> None:
    await (await world.datapath(name="other")).join(world.joint(1, near="nsm-1"))
    before = world.links(world.a)
    datapath = await world.datapath(records=False)
    joint = world.joint(2, near="nsm-1")
    with pytest.raises(AlreadyExists, match=rf"'nsm-1' exists already in namespace .*{world.a}") as caught:
        await datapath.join(joint)
    assert caught.value.hint
    assert world.links(world.a) == before
    await datapath.part(joint.connection)
    assert world.links(world.a) == before
    assert set(world.links(world.b)) == {"far-1"}


async def test_one_name_for_both_ends_in_one_namespace(world: World) -> None:
    with pytest.raises(AlreadyExists, match="nsm-1"):
        await (await world.datapath()).join(world.joint(1, b=world.a, near="nsm-1", far="nsm-1"))
    assert not world.links(world.a)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", InvalidRequest),
        ("file:///run/netns/nsm-there-is-none", FailedPrecondition),
        ("file:///proc/thread-self/ns/net", InvalidRequest),
        ("file:///proc/self/ns/net", InvalidRequest),
        ("file:///proc/../proc/self/ns/net", InvalidRequest),
        ("file:///proc/self/ns/mnt", InvalidRequest),
        ("file:///proc/PID/ns/mnt", FailedPrecondition),
        ("file:///etc/passwd", FailedPrecondition),
        ("file:///dev/null", InvalidRequest),
        ("file:///proc/999999999/ns/net", FailedPrecondition),
        ("inode://4/4026531992", FailedPrecondition),
        ("https://example.org/", InvalidRequest),
        ("file://[", InvalidRequest),
        ("run/netns/x", InvalidRequest),
        ("file:///run/netns/a%00b", InvalidRequest),
    ],
)
async def test_what_is_not_a_namespace(world: World, url: str, error: type[Exception]) -> None:
    joint = world.joint(1)
    joint.far.parameters["inodeURL"] = url.replace("PID", str(os.getpid()))
    with pytest.raises(error) as caught:
        await (await world.datapath()).join(joint)
    assert getattr(caught.value, "hint", "")
    assert not world.links(world.a)


async def test_what_the_kernel_refuses_is_told_and_undone(world: World) -> None:
    datapath, joint = await world.datapath(), world.joint(1)
    # below 1280 there is no IPv6
    joint.connection.context.MTU = 1000
    with pytest.raises(FailedPrecondition, match=r"fd00:1::1"):
        await datapath.join(joint)
    await datapath.part(joint.connection)
    assert not world.links(world.a)
    assert not world.links(world.b)


async def test_ipv6_is_switched_on_where_the_namespace_has_it_off(world: World) -> None:
    def off() -> None:
        with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
            file.write("1")

    run_inside(world.a, off)
    await (await world.datapath()).join(world.joint(1))
    assert world.ping(world.a, "fd00:1::1", "fd00:1::")
