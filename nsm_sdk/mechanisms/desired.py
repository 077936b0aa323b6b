# SPDX-License-Identifier: Apache-2.0
"""What should be there, and what it takes to get there; both pure.

Does:  `desired` reads a connection message and says what one end of it should look like: link, addresses, routes,
       neighbours, policy rules with tables of their own. `diff` says which changes lead from an observed state to it,
       `apply` does them to a model. Only what carries our protocol number is ever removed.
Place: between the connection and the datapath; no I/O, no clock.
State: none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nsm_sdk.api import Connection, Mechanism, check_interface_name, policy_source
from nsm_sdk.errors import InvalidRequest
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
from nsm_sdk.mechanisms.parse import address, destination, ip_text, mac_text, masked, network, ports, protocol
from nsm_sdk.mechanisms.tags import FAR, NEAR, Tag, derived_mac

RULE_PRIORITY = 10_000
_MAX_POLICIES = 256
_MAX_MTU = 65_535
_MIN_MTU = 68


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
    """The end of role `tag.role`, reached by `mechanism`. InvalidRequest for anything malformed in the message."""
    near = tag.role == NEAR
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
        peer = _mac(conn, FAR if near else NEAR, tag.connection)
        for other in others:
            neighbours[other.ip] = Neighbour(other.ip, peer, permanent=True)
    if context.MTU and not _MIN_MTU <= context.MTU <= _MAX_MTU:
        raise InvalidRequest(
            f"MTU {context.MTU} of the connection cannot be set on an interface",
            hint=f"give one from {_MIN_MTU} to {_MAX_MTU}, or 0 to leave it alone",
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
    given = ethernet.src_mac if role == NEAR else ethernet.dst_mac
    return mac_text(given, "ethernet_context") if given else derived_mac(role, connection)


def _addresses(texts: Iterable[str], where: str) -> list[Address]:
    found: dict[str, Address] = {}
    for text in texts:
        one = address(text, where)
        found[one.ip] = one
    return list(found.values())


def _inside(ip: str, prefix: int, networks: Iterable[Address]) -> bool:
    six = ":" in ip
    return any(
        six == (":" in one.ip) and prefix >= one.prefix and masked(ip, one.prefix) == masked(one.ip, one.prefix)
        for one in networks
    )


def _routes(
    own: list[Address], others: list[Address], explicit: list[tuple[str, str]], where: str, metric: int, table: int = 0
) -> list[Route]:
    """Link routes to the other end, and the given routes; the later of two for one destination stands."""
    found: dict[tuple[int, str, int], Route] = {}
    if not table:
        for other in others:
            if not _inside(other.ip, other.bits, own):
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
        if not gateway and not _inside(dst, bits, others):
            gateway = next((one.ip for one in others if one.family == family), "")
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


def diff(wanted: Desired, seen: Observed) -> list[Op]:
    """The changes that lead from `seen` to `wanted`, in an order in which a kernel takes them; [] when it is so.

    New addresses come before old ones go: the kernel drops the routes of a link that loses its last address.
    """
    link = seen.link
    # without a link nothing of it can be there, whatever an inconsistent observation says
    if link is None:
        seen = Observed(rules=seen.rules)
    ops: list[Op] = [MakeLink(name=wanted.name, mac=wanted.mac)] if link is None else []
    ops += [Remove(rule) for rule in sorted(seen.rules - set(wanted.rules), key=_rule_order)]
    ops += _link_changes(wanted, link or Link(name=wanted.name, mac=wanted.mac, mtu=0, up=False))
    ops += [Add(one) for one in wanted.addresses if one not in seen.addresses]
    keep = {one.ip for one in wanted.addresses}
    have = {(one.ip, one.prefix) for one in wanted.addresses}
    ops += [
        Remove(one)
        for one in sorted(seen.addresses, key=lambda one: (one.ip, one.prefix))
        if (one.ours and (one.ip, one.prefix) not in have) or (one.ip in keep and (one.ip, one.prefix) not in have)
    ]
    ops += [Add(one) for one in wanted.routes if one not in seen.routes]
    stale = [one for one in seen.routes if one.ours and one not in wanted.routes]
    ops += [Remove(one) for one in sorted(stale, key=lambda one: (not one.gateway, one.key, one.metric))]
    ops += [Add(rule) for rule in wanted.rules if rule not in seen.rules]
    named = {one.ip for one in wanted.neighbours}
    ops += [Remove(one) for one in sorted(seen.neighbours, key=lambda n: n.ip) if one.ours and one.ip not in named]
    present = {(one.ip, one.mac, one.permanent) for one in seen.neighbours}
    ops += [Add(one) for one in wanted.neighbours if (one.ip, one.mac, one.permanent) not in present]
    return ops


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
    for op in ops:
        match op:
            case MakeLink():
                seen = replace(seen, link=Link(name=op.name, mac=op.mac, up=False))
            case SetLink():
                if seen.link is not None:
                    fields = {key: getattr(op, key) for key in ("name", "mac", "alias", "mtu", "up")}
                    seen = replace(seen, link=replace(seen.link, **{k: v for k, v in fields.items() if v is not None}))
            case Add(thing) | Remove(thing):
                seen = _change(seen, thing, isinstance(op, Add))
    return seen


def _change(seen: Observed, thing: Address | Route | Rule | Neighbour, add: bool) -> Observed:
    match thing:
        case Address():
            rest = {a for a in seen.addresses if (a.ip, a.prefix) != (thing.ip, thing.prefix)}
            return replace(seen, addresses=frozenset(rest | {thing} if add else rest))
        case Route():
            routes = seen.routes - {thing}
            return replace(seen, routes=routes | {thing} if add else routes)
        case Rule():
            rules = seen.rules - {thing}
            return replace(seen, rules=rules | {thing} if add else rules)
        case Neighbour():
            near = {n for n in seen.neighbours if n.ip != thing.ip}
            return replace(seen, neighbours=frozenset(near | {thing} if add else near))
