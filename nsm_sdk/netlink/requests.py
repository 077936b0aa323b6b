# SPDX-License-Identifier: Apache-2.0
"""What a forwarder asks of the kernel, as netlink messages: about links, addresses, routes, rules and neighbours."""

from __future__ import annotations

import socket
import struct

from nsm_sdk.mechanisms.model import OURS, Add, Address, MakeLink, Neighbour, Op, Remove, Route, Rule, SetLink
from nsm_sdk.mechanisms.ports import NewEnd
from nsm_sdk.netlink.codec import (
    ACK,
    ADDRESS_HEAD,
    AF,
    APPEND,
    CREATE,
    DELADDR,
    DELLINK,
    DELNEIGH,
    DELROUTE,
    DELRULE,
    DUMP,
    EXCL,
    FRA,
    GETADDR,
    GETLINK,
    GETNEIGH,
    GETROUTE,
    GETRULE,
    IFA,
    IFF,
    IFLA,
    LINK_HEAD,
    NDA,
    NEIGHBOUR_HEAD,
    NESTED,
    NEWADDR,
    NEWLINK,
    NEWNEIGH,
    NEWROUTE,
    NEWRULE,
    NUD,
    REPLACE,
    ROUTE_HEAD,
    RT,
    RTA,
    SETLINK,
    U32,
    attribute,
    message,
    read_attributes,
)

_KEPT_OF_A_ROUTE = {
    RTA.DST,
    RTA.SRC,
    RTA.OIF,
    RTA.GATEWAY,
    RTA.PRIORITY,
    RTA.PREFSRC,
    RTA.METRICS,
    RTA.MULTIPATH,
    RTA.FLOW,
    RTA.TABLE,
    RTA.MARK,
    RTA.VIA,
    RTA.PREF,
    RTA.ENCAP_TYPE,
    RTA.ENCAP,
    RTA.EXPIRES,
    RTA.NH_ID,
}
"""The attributes that make a route; the others of a dump are the kernel's remarks."""
_EXPIRES = struct.Struct("=8xi")
_TICKS = 100
"""A dump counts the time that is left in these parts of a second."""


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, U32.pack(value))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def pair(a: NewEnd, a_index: int, b: NewEnd, b_index: int, b_namespace: int) -> bytearray:
    """A veth pair: `a` up in the socket's namespace, `b` down in that of descriptor `b_namespace`.

    The kernel refuses a `b` that is up: it is made before its peer.
    """
    peer = LINK_HEAD.pack(0, 0, b_index, 0, 0) + _end(b) + _u32(IFLA.NET_NS_FD, b_namespace)
    kind = _text(IFLA.INFO_KIND, "veth")
    kind += attribute(IFLA.INFO_DATA | NESTED, attribute(IFLA.VETH_INFO_PEER | NESTED, peer))
    body = LINK_HEAD.pack(0, 0, a_index, IFF.UP, IFF.UP) + _end(a) + attribute(IFLA.LINKINFO | NESTED, kind)
    return message(NEWLINK, ACK | CREATE | EXCL, body)


def _end(end: NewEnd) -> bytes:
    made = _text(IFLA.IFNAME, end.name) + attribute(IFLA.ADDRESS, _mac(end.mac))
    return made + (_u32(IFLA.MTU, end.mtu) if end.mtu else b"")


def delete_link(index: int) -> bytearray:
    return message(DELLINK, ACK, LINK_HEAD.pack(0, 0, index, 0, 0))


def get_link(*, name: str = "", index: int = 0) -> bytearray:
    # without statistics and per-family tables the answer is a third of the size
    body = LINK_HEAD.pack(0, 0, index, 0, 0) + (_text(IFLA.IFNAME, name) if name else b"")
    return message(GETLINK, 0, body + _u32(IFLA.EXT_MASK, IFLA.RTEXT_FILTER_SKIP_STATS))


def dump_links() -> bytearray:
    return message(GETLINK, DUMP, LINK_HEAD.pack(0, 0, 0, 0, 0) + _u32(IFLA.EXT_MASK, IFLA.RTEXT_FILTER_SKIP_STATS))


def dump_addresses(index: int) -> bytearray:
    return message(GETADDR, DUMP, ADDRESS_HEAD.pack(0, 0, 0, 0, index))


def dump_routes(family: int, index: int = 0) -> bytearray:
    body = ROUTE_HEAD.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0) + (_u32(RTA.OIF, index) if index else b"")
    return message(GETROUTE, DUMP, body)


def look_up(ip: str, source: str = "") -> bytearray:
    """Asks which route a packet to `ip` would take, from `source` if given."""
    target, mine = _ip(ip), _ip(source) if source else b""
    family = AF[6 if len(target) == 16 else 4]
    body = ROUTE_HEAD.pack(family, len(target) * 8, len(mine) * 8, 0, 0, 0, 0, 0, 0) + attribute(RTA.DST, target)
    return message(GETROUTE, 0, body + (attribute(RTA.SRC, mine) if mine else b""))


def dump_rules(family: int) -> bytearray:
    return message(GETRULE, DUMP, ROUTE_HEAD.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0))


def dump_neighbours(index: int) -> bytearray:
    return message(GETNEIGH, DUMP, NEIGHBOUR_HEAD.pack(0, 0, 0, 0, 0) + _u32(NDA.IFINDEX, index))


def encode(op: Op, index: int) -> bytearray:
    """The message that does `op` on link `index`. MakeLink has none: a pair is made whole."""
    match op:
        case SetLink():
            flags = (IFF.UP if op.up else 0, IFF.UP) if op.up is not None else (0, 0)
            body = LINK_HEAD.pack(0, 0, index, *flags)
            body += _text(IFLA.IFNAME, op.name) if op.name is not None else b""
            body += attribute(IFLA.ADDRESS, _mac(op.mac)) if op.mac is not None else b""
            body += _u32(IFLA.MTU, op.mtu) if op.mtu is not None else b""
            body += _text(IFLA.IFALIAS, op.alias) if op.alias is not None else b""
            return message(SETLINK, ACK, body)
        case Add(thing) | Remove(thing):
            adding = isinstance(op, Add)
            match thing:
                case Address():
                    return _address(thing, index, adding)
                case Route():
                    return _route(thing, index, adding)
                case Rule():
                    return _rule(thing, adding)
                case Neighbour():
                    return _neighbour(thing, index, adding)
        case MakeLink():
            raise ValueError("a link is made with its pair")


def _address(one: Address, index: int, adding: bool) -> bytearray:
    raw = _ip(one.ip)
    six = len(raw) == 16
    flags = IFA.F_PERMANENT | (IFA.F_NODAD if six else 0)
    body = ADDRESS_HEAD.pack(AF[6 if six else 4], one.prefix, flags, RT.SCOPE_UNIVERSE, index) + attribute(
        IFA.LOCAL, raw
    )
    if not six:
        body += attribute(IFA.ADDRESS, raw)
    if not adding:
        return message(DELADDR, ACK, body)
    if one.ours:
        body += attribute(IFA.PROTO, bytes((OURS,)))
    return message(NEWADDR, ACK | CREATE | REPLACE, body)


def _route(one: Route, index: int, adding: bool) -> bytearray:
    raw = _ip(one.dst)
    table = one.table if one.table < 256 else RT.TABLE_UNSPEC
    scope = RT.SCOPE_UNIVERSE if one.gateway or len(raw) == 16 else RT.SCOPE_LINK
    flags = RT.ONLINK if one.gateway and adding else 0
    protocol = OURS if one.ours else RT.PROT_STATIC
    family = AF[6 if len(raw) == 16 else 4]
    body = ROUTE_HEAD.pack(family, one.prefix, 0, 0, table, protocol, scope, RT.UNICAST, flags)
    if one.prefix:
        body += attribute(RTA.DST, raw)
    body += _u32(RTA.OIF, index) + _u32(RTA.TABLE, one.table)
    if one.metric:
        body += _u32(RTA.PRIORITY, one.metric)
    if one.gateway:
        body += attribute(RTA.GATEWAY, _ip(one.gateway))
    if adding:
        # neither REPLACE nor EXCL nor APPEND: in front of what others have for the same destination
        return message(NEWROUTE, ACK | CREATE, body)
    return message(DELROUTE, ACK, body)


def _rule(one: Rule, adding: bool) -> bytearray:
    table = one.table if one.table < 256 else RT.TABLE_UNSPEC
    body = ROUTE_HEAD.pack(AF[one.family], 0, one.src_prefix, 0, table, 0, 0, FRA.TO_TABLE, 0)
    if one.src:
        body += attribute(FRA.SRC, _ip(one.src))
    body += _u32(FRA.PRIORITY, one.priority) + _u32(FRA.TABLE, one.table)
    if adding or one.table != RT.TABLE_LOCAL:
        # What is removed must be ours, but for the rule that a namespace is born with.
        body += attribute(FRA.PROTOCOL, bytes((OURS,)))
    if one.enters:
        body += _text(FRA.IIFNAME, one.enters)
    if one.proto:
        body += attribute(FRA.IP_PROTO, bytes((one.proto,)))
    if one.sport:
        body += attribute(FRA.SPORT_RANGE, struct.pack("=HH", *one.sport))
    if one.dport:
        body += attribute(FRA.DPORT_RANGE, struct.pack("=HH", *one.dport))
    return message(NEWRULE, ACK | CREATE | EXCL, body) if adding else message(DELRULE, ACK, body)


def _neighbour(one: Neighbour, index: int, adding: bool) -> bytearray:
    raw = _ip(one.ip)
    state = NUD.PERMANENT if one.permanent else NUD.REACHABLE
    body = NEIGHBOUR_HEAD.pack(AF[6 if len(raw) == 16 else 4], index, state, 0, 0) + attribute(NDA.DST, raw)
    if not adding:
        return message(DELNEIGH, ACK, body)
    body += attribute(NDA.LLADDR, _mac(one.mac))
    if one.ours:
        body += attribute(NDA.PROTOCOL, bytes((OURS,)))
    return message(NEWNEIGH, ACK | CREATE | REPLACE, body)


def look_after(one: Address, index: int, seconds: int) -> bytearray:
    """Has the namespace take packets to an IPv6 address as its own for so long, whether the address is there or not."""
    body = ROUTE_HEAD.pack(AF[6], 128, 0, 0, RT.TABLE_LOCAL, OURS, RT.SCOPE_UNIVERSE, RT.LOCAL, 0)
    body += attribute(RTA.DST, _ip(one.ip)) + _u32(RTA.OIF, index)
    body += _u32(RTA.TABLE, RT.TABLE_LOCAL) + _u32(RTA.EXPIRES, seconds)
    return message(NEWROUTE, ACK | CREATE, body)


def again_address(body: bytes) -> bytearray:
    """Makes an address as a dump has shown it."""
    return message(NEWADDR, ACK | CREATE | EXCL, body)


def again_neighbour(body: bytes) -> bytearray:
    """Makes a neighbour as a dump has shown it."""
    return message(NEWNEIGH, ACK | CREATE | EXCL, body)


def again_route(body: bytes, *, onlink: bool = False, source: bool = True, replaces: bool = False) -> bytearray:
    """Makes a route as a dump has shown it, behind others for the same destination.

    `onlink`: whether or not its gateway is in a network of the link; `source`: with its preferred source address;
    `replaces`: instead of the one that has lost it.
    """
    family, prefix, src, tos, table, protocol, scope, kind, flags = ROUTE_HEAD.unpack_from(body)
    flags = flags & RT.ONLINK | (RT.ONLINK if onlink else 0)
    known = read_attributes(body, 12)
    attributes = {number: raw for number, raw in known.items() if number in _KEPT_OF_A_ROUTE}
    if not source:
        attributes.pop(RTA.PREFSRC, None)
    if RTA.NH_ID in attributes:
        # an object of its own says where to, and how
        flags = 0
        for number in (RTA.OIF, RTA.GATEWAY, RTA.MULTIPATH, RTA.VIA):
            attributes.pop(number, None)
    left = _EXPIRES.unpack_from(known.get(RTA.CACHEINFO, bytes(12)))[0]
    if left > 0:
        attributes[RTA.EXPIRES] = U32.pack(-(-left // _TICKS))
    made = ROUTE_HEAD.pack(family, prefix, src, tos, table, protocol, scope, kind, flags)
    made += b"".join(attribute(number, raw) for number, raw in attributes.items())
    return message(NEWROUTE, ACK | CREATE | (REPLACE if replaces else APPEND), made)
