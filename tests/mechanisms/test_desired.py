# SPDX-License-Identifier: Apache-2.0
"""Desired state and the difference to it, as properties.

Does:  for any desired and any observed state, applying the difference leads to what is desired, keeps what others made,
       and a second look finds nothing to do. Routes are derived as the field does.
Place: nsm_sdk.mechanisms.desired; no kernel.
State: none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Mechanism, policy_route
from nsm_sdk.api import Route as RouteMessage
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.mechanisms import (
    CLIENT_SIDE,
    ENDPOINT_SIDE,
    Address,
    Desired,
    Link,
    Neighbour,
    Observed,
    Route,
    Rule,
    Tag,
    apply,
    desired,
)
from nsm_sdk.mechanisms.desired import diff, placed
from nsm_sdk.mechanisms.model import MAIN_TABLE, Add, MakeLink, Remove

TABLES = range(500, 504)
_ips = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "fd00::2"])
_names = st.sampled_from(["nsm-1", "nsm-2"])
_macs = st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])
_bools = st.booleans()


@st.composite
def _addresses(draw: st.DrawFn, ours: bool | None = None) -> Address:
    one = Address(draw(_ips), 0)
    return Address(one.ip, draw(st.sampled_from([one.bits, one.bits - 8])), draw(_bools) if ours is None else ours)


@st.composite
def _routes(draw: st.DrawFn, ours: bool | None = None) -> Route:
    dst = draw(st.sampled_from(["10.1.0.0", "10.2.0.0", "fd01::"]))
    gateway = draw(st.sampled_from(["", "fd00::9" if ":" in dst else "10.0.0.9"]))
    return Route(
        dst=dst,
        prefix=draw(st.sampled_from([24, 32])),
        gateway=gateway,
        table=draw(st.sampled_from([MAIN_TABLE, *TABLES])),
        metric=draw(st.sampled_from([0, 300])),
        ours=draw(_bools) if ours is None else ours,
    )


_rules = st.builds(
    Rule,
    family=st.sampled_from([4, 6]),
    priority=st.integers(10_000, 10_002),
    table=st.sampled_from(TABLES),
    proto=st.sampled_from([0, 6, 17]),
)


def _neighbours(ours: bool | None = None) -> st.SearchStrategy[Neighbour]:
    return st.builds(Neighbour, ip=_ips, mac=_macs, permanent=_bools, ours=_bools if ours is None else st.just(ours))


def _unique(strategy: st.SearchStrategy[Any], key: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=4, unique_by=key)


_wanted = st.builds(
    Desired,
    name=_names,
    mac=_macs,
    alias=st.sampled_from(["a", "b"]),
    mtu=st.sampled_from([0, 1400, 1500]),
    addresses=_unique(_addresses(ours=True), lambda a: a.ip).map(tuple),
    routes=_unique(_routes(ours=True), lambda r: r.key).map(tuple),
    neighbours=_unique(_neighbours(ours=True), lambda n: n.ip).map(tuple),
    rules=_unique(_rules, lambda r: r).map(tuple),
    tables=st.just(TABLES),
)
_links = st.builds(Link, name=_names, index=st.just(7), mac=_macs, alias=st.sampled_from(["", "a"]), up=_bools)
_seen = st.builds(
    Observed,
    link=st.none() | _links,
    addresses=_unique(_addresses(), lambda a: (a.ip, a.prefix)).map(frozenset),
    routes=_unique(_routes(), lambda r: r).map(frozenset),
    neighbours=_unique(_neighbours(), lambda n: n.ip).map(frozenset),
    rules=st.frozensets(_rules, max_size=4),
)


@given(_wanted, _seen)
def test_applying_the_difference_leads_there(wanted: Desired, seen: Observed) -> None:
    before = seen if seen.link is not None else Observed(rules=seen.rules)
    after = apply(diff(wanted, seen), before)
    assert diff(wanted, after) == []
    assert after.link is not None
    assert (after.link.name, after.link.mac, after.link.alias) == (wanted.name, wanted.mac, wanted.alias)
    assert after.link.up
    assert after.link.mtu == (wanted.mtu or after.link.mtu)
    assert after.addresses >= set(wanted.addresses)
    assert after.routes >= set(wanted.routes)
    assert {(n.ip, n.mac, n.permanent) for n in after.neighbours} >= {
        (n.ip, n.mac, n.permanent) for n in wanted.neighbours
    }
    assert after.rules == set(wanted.rules)


@given(_wanted, _seen)
def test_only_our_own_is_removed(wanted: Desired, seen: Observed) -> None:
    # a kernel has an IPv6 address only once
    taken = {address.ip for address in wanted.addresses if address.family == 6}
    for op in diff(wanted, seen):
        if isinstance(op, Remove):
            thing = op.thing
            assert isinstance(thing, Rule) or thing.ours or (isinstance(thing, Address) and thing.ip in taken)


@given(_wanted, _seen)
def test_new_things_come_before_old_ones_go(wanted: Desired, seen: Observed) -> None:
    ops = diff(wanted, seen)
    first = next((at for at, op in enumerate(ops) if isinstance(op, Remove)), len(ops))
    late = [op.thing for op in ops[first:] if isinstance(op, Add)]
    again = [op.thing for op in ops[:first] if isinstance(op, Add)]
    for thing in late:
        # one that cannot stand beside what it replaces, and what goes with the last IPv4 address
        assert (
            (isinstance(thing, Address) and thing.family == 6)
            or thing in again
            or thing in seen.routes | seen.neighbours
        )


_POLICIES = st.lists(st.integers(0, 5), unique=True, max_size=4)


def _with_policies(numbers: list[int], prefix: str = "10.0.0.0/8") -> Desired:
    conn = connection(["10.0.0.1"], ["10.0.0.2"])
    conn.context.ip_context.policies.extend(
        policy_route(dst_port=str(100 + number), routes=[RouteMessage(prefix=prefix)]) for number in numbers
    )
    return desired(conn, KERNEL, tag())


def _way(rules: Iterable[Rule], routes: Iterable[Route], port: int) -> frozenset[Route]:
    """The routes that a packet to `port` finds first, without the number of their table."""
    found = min((rule for rule in rules if rule.dport == (port, port)), key=lambda rule: rule.priority, default=None)
    table = found.table if found is not None else MAIN_TABLE
    return frozenset(replace(route, table=MAIN_TABLE) for route in routes if route.table == table)


@given(_POLICIES, _POLICIES, st.sampled_from(["10.0.0.0/8", "11.0.0.0/8"]))
def test_policies_change_without_a_wrong_way(first: list[int], second: list[int], prefix: str) -> None:
    old, new = _with_policies(first), _with_policies(second, prefix)
    seen = apply(diff(old, Observed()), Observed())
    wanted = placed(new, seen)
    assert placed(wanted, seen) == wanted
    assert {rule.dport: rule.priority for rule in wanted.rules} == {rule.dport: rule.priority for rule in new.rules}
    ways = {
        port: {route for one in (old, new) for route in _way(one.rules, one.routes, port)} for port in range(100, 106)
    }
    after = seen
    for op in diff(wanted, seen):
        after = apply([op], after)
        for port, allowed in ways.items():
            assert _way(after.rules, after.routes, port) <= allowed
            if port - 100 in first and port - 100 in second:
                assert _way(after.rules, after.routes, port)
    assert diff(placed(new, after), after) == []


def test_as_many_policies_as_there_may_be_change_places() -> None:
    conn = connection(["10.0.0.1", "fd00::1"], ["10.0.0.2", "fd00::2"])
    policies = [policy_route(dst_port=str(number + 1)) for number in range(128)]
    conn.context.ip_context.policies.extend(policies)
    seen = apply(diff(desired(conn, KERNEL, tag()), Observed()), Observed())
    del conn.context.ip_context.policies[:]
    conn.context.ip_context.policies.extend(policy_route(src_port=str(number + 1)) for number in range(128))
    wanted = placed(desired(conn, KERNEL, tag()), seen)
    assert len({rule.table for rule in wanted.rules}) == 256
    after = apply(diff(wanted, seen), seen)
    assert diff(placed(wanted, after), after) == []


@given(_wanted)
def test_what_is_so_needs_nothing(wanted: Desired) -> None:
    link = Link(name=wanted.name, mac=wanted.mac, alias=wanted.alias, mtu=wanted.mtu or 1500)
    seen = Observed(
        link=link,
        addresses=frozenset(wanted.addresses),
        routes=frozenset(wanted.routes),
        neighbours=frozenset(wanted.neighbours),
        rules=frozenset(wanted.rules),
    )
    assert diff(wanted, seen) == []


@given(_wanted)
def test_nothing_there_begins_with_the_link(wanted: Desired) -> None:
    assert diff(wanted, Observed())[0] == MakeLink(name=wanted.name, mac=wanted.mac)


def tag(role: str = CLIENT_SIDE, connection: str = "c") -> Tag:
    return Tag(forwarder="f", role=role, segment="s", connection=connection)


def connection(src: list[str], dst: list[str], **context: Any) -> Connection:
    conn = Connection(id="c", payload="ETHERNET")
    ip = conn.context.ip_context
    ip.src_ip_addrs.extend(src)
    ip.dst_ip_addrs.extend(dst)
    for key in ("src_routes", "dst_routes"):
        for prefix, hop in context.get(key, ()):
            getattr(ip, key).add(prefix=prefix, nextHop=hop)
    return conn


KERNEL = Mechanism(type="KERNEL", parameters={"name": "nsm-1"})


@pytest.mark.parametrize(
    ("src", "dst", "explicit", "expected"),
    [
        (["10.0.0.1/32"], ["10.0.0.2/32"], [], {("10.0.0.2", 32, "")}),
        (["10.0.0.1"], ["10.0.0.2"], [("10.0.0.2/32", "")], {("10.0.0.2", 32, "")}),
        (["10.0.0.1/24"], ["10.0.0.2/24"], [], set()),
        (["10.0.0.1/32"], ["10.0.0.2/24"], [("10.0.0.128/25", "")], {("10.0.0.0", 24, ""), ("10.0.0.128", 25, "")}),
        (["10.0.0.1"], ["10.0.0.2"], [("10.9.8.7/8", "")], {("10.0.0.2", 32, ""), ("10.0.0.0", 8, "10.0.0.2")}),
        (["10.0.0.1"], ["10.0.0.2"], [("10.0.0.2/32", "10.0.0.2")], {("10.0.0.2", 32, "")}),
        (["fd00::1"], ["fd00::2"], [("::/0", "")], {("fd00::2", 128, ""), ("::", 0, "fd00::2")}),
        (["fd00::1"], ["fd00::2"], [("10.0.0.0/8", "")], {("fd00::2", 128, ""), ("10.0.0.0", 8, "")}),
        (["::ffff:10.0.0.1"], ["::10.0.0.2"], [], {("::10.0.0.2", 128, "")}),
        (["10.0.0.1"], [], [("10.0.0.0/8", "10.0.0.9")], {("10.0.0.0", 8, "10.0.0.9")}),
    ],
)
def test_routes_of_either_side(
    src: list[str], dst: list[str], explicit: list[tuple[str, str]], expected: set[tuple[str, int, str]]
) -> None:
    near = desired(connection(src, dst, src_routes=explicit), KERNEL, tag())
    far = desired(connection(dst, src, dst_routes=explicit), KERNEL, tag(ENDPOINT_SIDE))
    for end in (near, far):
        assert {(one.dst, one.prefix, one.gateway) for one in end.routes} == expected


def test_a_policy_without_source_and_routes_is_for_the_families_there_are() -> None:
    conn = connection(["10.0.0.1", "fd00::1"], ["10.0.0.2", "fd00::2"])
    conn.context.ip_context.policies.append(policy_route(dst_port="53"))
    end = desired(conn, KERNEL, tag())
    assert [(rule.family, rule.priority) for rule in end.rules] == [(4, 10_000), (6, 10_000)]
    assert len({rule.table for rule in end.rules}) == 2
    assert {rule.table for rule in end.rules} < set(end.tables)


def test_an_ipv6_policy_without_routes_gets_an_ipv6_default() -> None:
    conn = connection(["fd00::1"], ["fd00::2"])
    conn.context.ip_context.policies.append(policy_route(source="fd00::1"))
    end = desired(conn, KERNEL, tag())
    assert Route(dst="::", prefix=0, gateway="fd00::2", table=end.rules[0].table, metric=tag().metric) in end.routes


def test_the_far_side_gets_no_policies() -> None:
    conn = connection(["10.0.0.1"], ["10.0.0.2"])
    conn.context.ip_context.policies.append(policy_route(dst_port="53"))
    assert not desired(conn, KERNEL, tag(ENDPOINT_SIDE)).rules


def test_mac_addresses_that_the_connection_gives() -> None:
    conn = connection([], [])
    conn.payload = "IP"
    conn.context.ethernet_context.src_mac = "02-AA-00-00-00-01"
    assert desired(conn, KERNEL, tag()).mac == "02:aa:00:00:00:01"
    conn.context.ip_context.src_ip_addrs.append("10.0.0.1")
    assert desired(conn, KERNEL, tag(ENDPOINT_SIDE)).neighbours == (
        Neighbour("10.0.0.1", "02:aa:00:00:00:01", permanent=True),
    )


def _broken(**fields: Any) -> Connection:
    conn = connection(["10.0.0.1"], ["10.0.0.2"])
    ip = conn.context.ip_context
    for name, value in fields.items():
        if name == "MTU":
            conn.context.MTU = value
        elif name == "mac":
            conn.context.ethernet_context.src_mac = value
        elif name in ("src_ip_addrs", "dst_ip_addrs"):
            getattr(ip, name).append(value)
        else:
            getattr(ip, name).add(**value) if isinstance(value, dict) else getattr(ip, name).append(value)
    return conn


@pytest.mark.parametrize(
    "fields",
    [
        {"src_ip_addrs": "not-an-address"},
        {"src_ip_addrs": "10.0.0.1/33"},
        {"src_ip_addrs": "224.0.0.1"},
        {"src_ip_addrs": "0.0.0.0"},
        {"src_ip_addrs": "fe80::1%eth0"},
        {"dst_ip_addrs": "::/0"},
        {"dst_ip_addrs": ""},
        {"src_routes": {"prefix": "10.0.0.0/8/8"}},
        {"src_routes": {"prefix": ""}},
        {"src_routes": {"prefix": "10.0.0.0/8", "nextHop": "fd00::1"}},
        {"src_routes": {"prefix": "10.0.0.0/8", "nextHop": "gateway"}},
        {"ip_neighbors": {"ip": "10.0.0.9", "hardware_address": "02:00"}},
        {"ip_neighbors": {"ip": "10.0.0.9", "hardware_address": "ff:ff:ff:ff:ff:ff"}},
        {"ip_neighbors": {"ip": "x", "hardware_address": "02:00:00:00:00:01"}},
        {"MTU": 70_000},
        {"MTU": 67},
        {"mac": "01:00:5e:00:00:01"},
        {"policies": policy_route(source="nobody")},
        {"policies": policy_route(proto="tcp")},
        {"policies": policy_route(proto="256")},
        {"policies": policy_route(dst_port="0")},
        {"policies": policy_route(dst_port="90-80")},
        {"policies": policy_route(src_port="1-2-3")},
        {"policies": policy_route(src_port="65536")},
        {"policies": policy_route(source="fd00::1", routes=[RouteMessage(prefix="10.0.0.0/8")])},
    ],
    ids=str,
)
def test_malformed_fields_of_a_peer(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        desired(_broken(**fields), KERNEL, tag())
    assert caught.value.hint


def test_too_many_policies() -> None:
    conn = connection([], [])
    conn.context.ip_context.policies.extend(policy_route(dst_port="53") for _ in range(129))
    with pytest.raises(InvalidRequest, match="129 policy routes"):
        desired(conn, KERNEL, tag())


@given(st.text(max_size=40))
def test_no_text_of_a_peer_escapes_as_another_error(text: str) -> None:
    for field in ("src_ip_addrs", "dst_ip_addrs", "src_routes", "policies"):
        value: Any = {"prefix": text} if field == "src_routes" else text
        value = policy_route(source=text, dst_port=text, proto=text) if field == "policies" else value
        try:
            end = desired(_broken(**{field: value}), KERNEL, tag())
        except InvalidRequest:
            continue
        assert all(IPv6Address(a.ip) if a.family == 6 else IPv4Address(a.ip) for a in end.addresses)


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx", "a/b", "a b", "..", "café-et-thé-xx"])
def test_names_that_no_interface_may_have(name: str) -> None:
    with pytest.raises(InvalidRequest):
        desired(connection([], []), Mechanism(type="KERNEL", parameters={"name": name}), tag())
