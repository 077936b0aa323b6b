# SPDX-License-Identifier: Apache-2.0
"""What should be there, and what it takes to get there; both pure.

Does:  `desired` reads a connection message and says what one end of it should look like: link, addresses, routes,
       neighbours, policy rules with tables of their own. Each text of a peer becomes a canonical value, or an
       InvalidRequest with the field, the text and a remedy, before it reaches a kernel. `placed` gives the rules the
       tables that they have already, `diff` says which changes lead from an observed state to it, `apply` does them to
       a model. Only what carries our protocol number is ever removed.
Place: between the connection and the datapath; no I/O, no clock.
State: none.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from nsm_sdk.api import Connection, Mechanism, check_interface_name, policy_source
from nsm_sdk.errors import FailedPrecondition, InvalidRequest
from nsm_sdk.mechanisms.model import (
    MAIN_TABLE,
    Add,
    Address,
    Link,
    MakeLink,
    Neighbour,
    Observed,
    Op,
    Remove,
    Route,
    Rule,
    SetLink,
)
from nsm_sdk.mechanisms.tags import CLIENT_SIDE, ENDPOINT_SIDE, Tag, derived_mac

RULE_PRIORITY = 10_000
_MAX_POLICIES = 256
_MAX_MTU = 65_535
_MIN_MTU = 68
_MIN_MTU_6 = 1280
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NUMBER = re.compile(r"[0-9]{1,5}")
_LONGEST_ADDRESS = 64  # no address is longer; keeps a peer's rubbish out of the cache
_RECENT = 1024
"""Either end of a connection, and its refreshes, read the same texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One end of a connection as it should be. `mtu` 0: whatever it is. `tables`: those that are this end's own."""

    name: str
    mac: str
    alias: str
    mtu: int = 0
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    rules: tuple[Rule, ...] = ()
    tables: range = range(0)


def desired(conn: Connection, mechanism: Mechanism, tag: Tag) -> Desired:
    """The end of role `tag.role`, reached by `mechanism`. InvalidRequest for anything malformed in the message,
    FailedPrecondition for an MTU that IPv6 cannot have."""
    near = tag.role == CLIENT_SIDE
    context = conn.context
    ip = context.ip_context
    name = mechanism.parameters.get("name", "")
    check_interface_name(name)
    own = _addresses(ip.src_ip_addrs if near else ip.dst_ip_addrs, "src_ip_addrs" if near else "dst_ip_addrs")
    others = _addresses(ip.dst_ip_addrs if near else ip.src_ip_addrs, "dst_ip_addrs" if near else "src_ip_addrs")
    explicit = [(r.prefix, r.nextHop) for r in (ip.src_routes if near else ip.dst_routes)]
    routes = _routes(own, others, explicit, "src_routes" if near else "dst_routes", tag.metric)
    rules: list[Rule] = []
    if near and ip.policies:
        rules, tables = _policies(conn, own, others, tag)
        routes += tables
    mine = {one.ip for one in own}
    neighbours = {}
    for entry in ip.ip_neighbors:
        text = ip_text(entry.ip, "ip_neighbors")
        if text not in mine:
            neighbours[text] = Neighbour(text, mac_text(entry.hardware_address, "ip_neighbors"))
    if conn.payload in ("", "IP"):
        peer = _mac(conn, ENDPOINT_SIDE if near else CLIENT_SIDE, tag.connection)
        for other in others:
            neighbours[other.ip] = Neighbour(other.ip, peer, permanent=True)
    if context.MTU and not _MIN_MTU <= context.MTU <= _MAX_MTU:
        raise InvalidRequest(
            f"MTU {context.MTU} of the connection cannot be set on an interface",
            hint=f"give one from {_MIN_MTU} to {_MAX_MTU}, or 0 to leave it alone",
        )
    six = next((one.ip for one in own if one.family == 6), "")
    if six and 0 < context.MTU < _MIN_MTU_6:
        # a kernel would take all IPv6 away from the interface before it refused the address
        raise FailedPrecondition(
            f"MTU {context.MTU} of the connection is too small for its address {six}",
            hint=f"give {_MIN_MTU_6} or more where there are IPv6 addresses",
        )
    return Desired(
        name=name,
        mac=_mac(conn, tag.role, tag.connection),
        alias=tag.alias,
        mtu=context.MTU,
        addresses=tuple(own),
        routes=tuple(routes),
        neighbours=tuple(neighbours.values()),
        rules=tuple(rules),
        tables=tag.tables if near else range(0),
    )


def _mac(conn: Connection, role: str, connection: str) -> str:
    ethernet = conn.context.ethernet_context
    given = ethernet.src_mac if role == CLIENT_SIDE else ethernet.dst_mac
    return mac_text(given, "ethernet_context") if given else derived_mac(role, connection)


def _addresses(texts: Iterable[str], where: str) -> list[Address]:
    found: dict[str, Address] = {}
    for text in texts:
        one = address(text, where)
        found[one.ip] = one
    return list(found.values())


class _Networks:
    """The networks of addresses, by family and length: a peer may send thousands."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._found: dict[tuple[bool, int], set[int]] = {}
        for one in addresses:
            self._found.setdefault((":" in one.ip, one.prefix), set()).add(masked(one.ip, one.prefix))

    def hold(self, ip: str, prefix: int) -> bool:
        """Whether one of them has all of that network in it."""
        six = ":" in ip
        return any(
            six == family and prefix >= length and masked(ip, length) in found
            for (family, length), found in self._found.items()
        )


def _routes(
    own: list[Address], others: list[Address], explicit: list[tuple[str, str]], where: str, metric: int, table: int = 0
) -> list[Route]:
    """Link routes to the other end, and the given routes; the later of two for one destination stands."""
    found: dict[tuple[int, str, int], Route] = {}
    near, far = _Networks(own), _Networks(others)
    first = {family: next((one.ip for one in others if one.family == family), "") for family in (4, 6)}
    if not table:
        for other in others:
            if not near.hold(other.ip, other.bits):
                weight = metric if other.family == 6 else 0
                route = Route(dst=network(other.ip, other.prefix), prefix=other.prefix, metric=weight)
                found[route.key] = route
    for prefix, next_hop in explicit:
        dst, bits = destination(prefix, where)
        family = 6 if ":" in dst else 4
        gateway = ip_text(next_hop, where) if next_hop else ""
        if gateway and (":" in gateway) != (family == 6):
            raise InvalidRequest(
                f"route {prefix!r} via {next_hop!r} in {where} mixes IPv4 and IPv6",
                hint="give a next hop of the same family as the prefix",
            )
        if not gateway and not far.hold(dst, bits):
            gateway = first[family]
        if gateway == dst and bits == (128 if family == 6 else 32):
            gateway = ""
        weight = metric if family == 6 else 0
        route = Route(dst=dst, prefix=bits, gateway=gateway, table=table or MAIN_TABLE, metric=weight)
        found[route.key] = route
    return sorted(found.values(), key=lambda one: bool(one.gateway))


def _policies(conn: Connection, own: list[Address], others: list[Address], tag: Tag) -> tuple[list[Rule], list[Route]]:
    rules: list[Rule] = []
    routes: list[Route] = []
    tables = iter(tag.tables)
    policies = conn.context.ip_context.policies
    if len(policies) > _MAX_POLICIES // 2:
        raise InvalidRequest(
            f"{len(policies)} policy routes in one connection", hint=f"at most {_MAX_POLICIES // 2} are possible"
        )
    for position, policy in enumerate(policies):
        source = policy_source(policy)
        src, bits = destination(source, "policies.from") if source else ("", 0)
        given = [(one.prefix, one.nextHop) for one in policy.routes]
        if src:
            families = [6 if ":" in src else 4]
        elif given:
            families = sorted({6 if ":" in prefix else 4 for prefix, _ in given})
        else:
            families = sorted({one.family for one in own}) or [4]
        for family in families:
            table = next(tables)
            wanted = [pair for pair in given if (":" in pair[0]) == (family == 6)]
            if src and len(wanted) != len(given):
                raise InvalidRequest(
                    f"policy route from {src}/{bits} has routes of the other address family",
                    hint="give one policy for each family",
                )
            default = [("::/0" if family == 6 else "0.0.0.0/0", "")]
            routes += _routes(own, others, wanted or default, "policies.routes", tag.metric, table)
            rules.append(
                Rule(
                    family=family,
                    priority=RULE_PRIORITY + position,
                    table=table,
                    src=src,
                    src_prefix=bits,
                    proto=protocol(policy.proto),
                    sport=ports(policy.src_port, "policies.src_port"),
                    dport=ports(policy.dst_port, "policies.dst_port"),
                )
            )
    return rules, routes


def placed(wanted: Desired, seen: Observed) -> Desired:
    """`wanted` with each policy rule in the table that serves the same traffic already; the others in free ones.

    So a policy that goes, comes or changes its rank leaves the tables of the others alone, and no table ever serves two
    of them.
    """
    standing: dict[tuple[object, ...], list[int]] = {}
    for rule in sorted(seen.rules, key=_rule_order):
        if rule.table in wanted.tables:
            standing.setdefault(_traffic(rule), []).append(rule.table)
    home: dict[int, int] = {}
    for rule in wanted.rules:
        table = next((one for one in standing.get(_traffic(rule), ()) if one not in home.values()), None)
        if table is not None:
            home[rule.table] = table
    kept = set(home.values())
    used = {rule.table for rule in seen.rules} | {route.table for route in seen.routes if route.ours}
    free = iter(sorted(set(wanted.tables) - kept, key=lambda table: (table in used, table)))
    for rule in wanted.rules:
        if rule.table not in home:
            home[rule.table] = next(free)
    return replace(
        wanted,
        rules=tuple(replace(rule, table=home[rule.table]) for rule in wanted.rules),
        routes=tuple(replace(route, table=home.get(route.table, route.table)) for route in wanted.routes),
    )


def _traffic(rule: Rule) -> tuple[object, ...]:
    return rule.family, rule.src, rule.src_prefix, rule.proto, rule.sport, rule.dport


def diff(wanted: Desired, seen: Observed) -> list[Op]:
    """The changes that lead from `seen` to `wanted`, in an order in which a kernel takes them; [] when it is so.

    All that is new comes before anything old goes, so traffic takes the old way or the new one, and where a kernel
    refuses something new, what is there is left alone.
    """
    link = seen.link
    # without a link nothing of it can be there, whatever an inconsistent observation says
    if link is None:
        seen = Observed(rules=seen.rules)
    ops: list[Op] = [MakeLink(name=wanted.name, mac=wanted.mac)] if link is None else []
    link = link or Link(name=wanted.name, mac=wanted.mac, mtu=0, up=False)
    ops += _link_changes(wanted, link)
    stale = _stale_addresses(wanted, seen)
    # a kernel has an IPv6 address once, and does not change its prefix length
    gone: dict[str, list[Address]] = {}
    for one in stale:
        gone.setdefault(one.ip, []).append(one)
    swapped = {one: gone[one.ip] for one in wanted.addresses if one.family == 6 and one.ip in gone}
    ops += [Add(one) for one in wanted.addresses if one not in seen.addresses and one not in swapped]
    ops += [Add(one) for one in wanted.routes if one not in seen.routes]
    # with the MAC of a link all its neighbours go
    present = {(one.ip, one.mac, one.permanent) for one in seen.neighbours if link.mac == wanted.mac}
    ops += [Add(one) for one in wanted.neighbours if (one.ip, one.mac, one.permanent) not in present]
    # new rules from the first on, then old ones from the last on: whatever matches first is always the old or the new
    ops += [Add(rule) for rule in sorted(set(wanted.rules) - seen.rules, key=_rule_order)]
    ops += [Remove(rule) for rule in sorted(seen.rules - set(wanted.rules), key=_rule_order, reverse=True)]
    for one, before in swapped.items():
        ops += [Remove(old) for old in before]
        ops.append(Add(one))
    replaced = {one.ip for one in swapped}
    ops += [Remove(one) for one in stale if one.ip not in replaced]
    if stale and not any(one.family == 4 for one in (*wanted.addresses, *(seen.addresses - set(stale)))):
        # routes and neighbours have gone with the last address
        ops += [Add(route) for route in wanted.routes if route.family == 4]
        ops += [Add(near) for near in wanted.neighbours if ":" not in near.ip]
    routes = set(wanted.routes)
    old = [one for one in seen.routes if one.ours and one not in routes]
    ops += [Remove(one) for one in sorted(old, key=lambda one: (not one.gateway, one.key, one.metric))]
    named = {one.ip for one in wanted.neighbours}
    ops += [Remove(one) for one in sorted(seen.neighbours, key=lambda n: n.ip) if one.ours and one.ip not in named]
    return ops


def _stale_addresses(wanted: Desired, seen: Observed) -> list[Address]:
    have = {(one.ip, one.prefix) for one in wanted.addresses}
    six = {one.ip for one in wanted.addresses if one.family == 6}
    found = [one for one in seen.addresses if (one.ip, one.prefix) not in have and (one.ours or one.ip in six)]
    return sorted(found, key=lambda one: (one.ip, one.prefix))


def _rule_order(rule: Rule) -> tuple[int, int, int]:
    return rule.priority, rule.table, rule.family


def _link_changes(wanted: Desired, link: Link) -> list[Op]:
    change = SetLink(
        name=wanted.name if link.name != wanted.name else None,
        mac=wanted.mac if link.mac != wanted.mac else None,
        alias=wanted.alias if link.alias != wanted.alias else None,
        mtu=wanted.mtu if wanted.mtu and link.mtu != wanted.mtu else None,
        up=True if not link.up else None,
    )
    return [change] if change != SetLink() else []


def apply(ops: Iterable[Op], seen: Observed) -> Observed:
    """What a kernel would show after `ops`: the model behind the fake netlink and the tests."""
    for _, alike in groupby(ops, key=kind_of_change):
        for op in alike:
            match op:
                case MakeLink():
                    seen = replace(seen, link=Link(name=op.name, mac=op.mac, up=False))
                case SetLink():
                    if seen.link is not None:
                        fields = {key: getattr(op, key) for key in ("name", "mac", "alias", "mtu", "up")}
                        changed = {key: value for key, value in fields.items() if value is not None}
                        seen = replace(seen, link=replace(seen.link, **changed))
                case Add(thing) | Remove(thing):
                    # those of one kind at once: each would copy all that is there
                    things = [thing, *(each.thing for each in alike if isinstance(each, (Add, Remove)))]
                    seen = _change(seen, things, isinstance(op, Add))
    return seen


def kind_of_change(op: Op) -> tuple[type, ...]:
    """What operations that may be done together have in common."""
    return (type(op), type(op.thing)) if isinstance(op, (Add, Remove)) else (type(op),)


def _change(seen: Observed, things: Sequence[Address | Route | Rule | Neighbour], add: bool) -> Observed:
    kind = type(things[0])
    field = {Address: "addresses", Route: "routes", Rule: "rules", Neighbour: "neighbours"}[kind]
    present: dict[object, object] = {_identity(one): one for one in getattr(seen, field)}
    for thing in things:
        # the later one stands
        present.pop(_identity(thing), None)
        if add:
            present[_identity(thing)] = thing
    changed: dict[str, Any] = {field: frozenset(present.values())}
    return replace(seen, **changed)


def _identity(thing: object) -> object:
    """What there is only one of."""
    match thing:
        case Address():
            return thing.ip, thing.prefix
        case Neighbour():
            return thing.ip
    return thing


def _refuse(what: str, text: str, where: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"{text[:80]!r} in {where} is not {what}", hint=hint)


def _raw(text: str) -> bytes | None:
    """4 or 16 bytes; None for what is not an address. The C library takes no zones and no leading zeros."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _text(raw: bytes) -> str:
    """As the C library writes it, which is how observed addresses are written."""
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def _split(text: str) -> tuple[bytes, int] | None:
    """Address and prefix length of `address[/length]`; None for anything else."""
    ip, slash, length = text.partition("/")
    raw = _raw(ip)
    if raw is None:
        return None
    bits = len(raw) * 8
    if not slash:
        return raw, bits
    if not _NUMBER.fullmatch(length) or int(length) > bits:
        return None
    return raw, int(length)


@lru_cache(_RECENT)
def address(text: str, where: str) -> Address:
    """An interface address; /32 or /128 where no prefix is given."""
    parsed = _split(text)
    if parsed is None:
        raise _refuse("an address", text, where, "give an address with a prefix, like 172.16.0.1/32")
    raw, bits = parsed
    if not any(raw) or (raw[0] == 0xFF if len(raw) == 16 else raw[0] >= 224):
        raise _refuse("an address for an interface", text, where, "give a unicast address")
    return Address(_text(raw), bits)


@lru_cache(_RECENT)
def masked(ip: str, bits: int) -> int:
    """The network of an address as a number: its first `bits` bits, the others 0."""
    raw = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    rest = len(raw) * 8 - bits
    return int.from_bytes(raw, "big") >> rest << rest


def network(ip: str, bits: int) -> str:
    """The network address of a canonical address."""
    size = 16 if ":" in ip else 4
    return ip if bits == size * 8 else _text(masked(ip, bits).to_bytes(size, "big"))


@lru_cache(_RECENT)
def destination(text: str, where: str) -> tuple[str, int]:
    """Network address and prefix length; bits of the host part are masked."""
    parsed = _split(text)
    if parsed is None:
        raise _refuse("a prefix", text, where, "give a prefix like 10.0.0.0/8 or fd00::/64")
    raw, bits = parsed
    return network(_text(raw), bits), bits


def ip_text(text: str, where: str) -> str:
    """A plain address, canonical; a prefix length after it is dropped."""
    plain = text.partition("/")[0]
    found = _plain(plain) if len(plain) <= _LONGEST_ADDRESS else ""
    if not found:
        raise _refuse("an address", text, where, "give a plain address like 172.16.0.1")
    return found


@lru_cache(_RECENT)
def _plain(text: str) -> str:
    """The canonical address; empty for what is none."""
    raw = _raw(text)
    return _text(raw) if raw is not None else ""


def mac_text(text: str, where: str) -> str:
    """A unicast MAC in lower case with colons."""
    lower = text.lower().replace("-", ":")
    if not _MAC.fullmatch(lower) or int(lower[:2], 16) & 1 or lower == "00:00:00:00:00:00":
        raise _refuse("a unicast MAC address", text, where, "give one like 02:00:00:00:00:01")
    return lower


def ports(text: str, where: str) -> tuple[int, int] | None:
    """`N` or `A-B` as an inclusive range; None for any."""
    if not text:
        return None
    first, dash, last = text.partition("-")
    pair = (first, last if dash else first)
    if not all(_NUMBER.fullmatch(one) for one in pair):
        raise _refuse("a port or a range of ports", text, where, "give N or A-B with numbers up to 65535")
    low, high = int(pair[0]), int(pair[1])
    if not 0 < low <= high <= 65_535:
        raise _refuse("a port or a range of ports", text, where, "ports go from 1 to 65535, the smaller first")
    return low, high


def protocol(text: str) -> int:
    """An IP protocol number; 0 for any."""
    if not text:
        return 0
    if not _NUMBER.fullmatch(text) or int(text) > 255:
        raise _refuse("an IP protocol number", text, "policies.proto", "give a number like 6 (TCP) or 17 (UDP)")
    return int(text)
