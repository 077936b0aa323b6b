# SPDX-License-Identifier: Apache-2.0
"""Netlink messages as bytes, both ways, for the few objects that a forwarder makes.

Does:  encodes requests and decodes dumps and notifications of links, addresses, routes, rules and neighbours. pyroute2
       does the same for every object there is, at 74 us a message against 3 us; one connection takes fifteen messages
       and the kernel about a millisecond for all, so these few are written out. The tests compare both with each other.
Place: under the socket; pure.
State: none.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from nsm_sdk.mechanisms.model import OURS, Add, Address, Link, MakeLink, Neighbour, Op, Remove, Route, Rule, SetLink
from nsm_sdk.mechanisms.ports import NewEnd

NLMSG_ERROR, NLMSG_DONE = 2, 3
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
DUMP_INTERRUPTED = 0x10
UP, LOWER_UP = 0x1, 0x10000

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGH = struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_FAMILY = {socket.AF_INET: 4, socket.AF_INET6: 6}
_ONLINK = 4
_UNIVERSE, _LINK_SCOPE = 0, 253
_PERMANENT, _REACHABLE, _NO_ENTRY = 0x80, 0x02, 0x01 | 0x20
_NODAD = 0x02
_DUMMY_TABLE = 0
_LOCAL = 2


def message(kind: int, flags: int, body: bytes) -> bytearray:
    """A request with sequence number 0; `number` puts the real one in."""
    out = bytearray(_HEADER.pack(16 + len(body), kind, flags | REQUEST, 0, 0))
    out += body
    return out


def number(packet: bytearray, sequence: int) -> None:
    """Writes the sequence number into an encoded message."""
    _U32.pack_into(packet, 8, sequence)


def _attr(kind: int, data: bytes) -> bytes:
    size = len(data)
    return _ATTR.pack(size + 4, kind) + data + bytes(-size & 3)


def _text(kind: int, text: str) -> bytes:
    return _attr(kind, text.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attr(kind, _U32.pack(value))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def pair(a: NewEnd, a_index: int, b: NewEnd, b_index: int, b_namespace: int) -> bytearray:
    """A veth pair: `a` up in the socket's namespace, `b` down in that of descriptor `b_namespace`.

    The kernel refuses a `b` that is up: it is made before its peer.
    """
    peer = _LINK.pack(0, 0, b_index, 0, 0) + _end(b) + _u32(28, b_namespace)
    kind = _text(1, "veth") + _attr(2 | _NESTED, _attr(1 | _NESTED, peer))
    body = _LINK.pack(0, 0, a_index, UP, UP) + _end(a) + _attr(18 | _NESTED, kind)
    return message(NEWLINK, ACK | CREATE | EXCL, body)


def _end(end: NewEnd) -> bytes:
    return _text(3, end.name) + _attr(1, _mac(end.mac)) + (_u32(4, end.mtu) if end.mtu else b"")


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    return _attr(kind, data)


def new_link(name: str, kind: str, data: bytes, lower: int) -> bytearray:
    """An interface of any kind, with the attributes of its kind, on top of `lower` (0: none)."""
    info = _text(1, kind) + (_attr(2 | _NESTED, data) if data else b"")
    body = _LINK.pack(0, 0, 0, 0, 0) + _text(3, name) + (_u32(5, lower) if lower else b"") + _attr(18 | _NESTED, info)
    return message(NEWLINK, ACK | CREATE | EXCL, body)


def delete_link(index: int) -> bytearray:
    return message(DELLINK, ACK, _LINK.pack(0, 0, index, 0, 0))


def get_link(*, name: str = "", index: int = 0) -> bytearray:
    # without statistics and per-family tables the answer is a third of the size
    body = _LINK.pack(0, 0, index, 0, 0) + (_text(3, name) if name else b"")
    return message(GETLINK, 0, body + _u32(29, 8))


def dump_links() -> bytearray:
    return message(GETLINK, DUMP, _LINK.pack(0, 0, 0, 0, 0) + _u32(29, 8))


def dump_addresses(index: int) -> bytearray:
    return message(GETADDR, DUMP, _ADDR.pack(0, 0, 0, 0, index))


def dump_routes(family: int, index: int = 0) -> bytearray:
    body = _ROUTE.pack(_AF[family], 0, 0, 0, 0, 0, 0, 0, 0) + (_u32(4, index) if index else b"")
    return message(GETROUTE, DUMP, body)


def look_up(ip: str) -> bytearray:
    """Asks which route a packet to an IPv6 address would take."""
    return message(GETROUTE, 0, _ROUTE.pack(_AF[6], 128, 0, 0, 0, 0, 0, 0, 0) + _attr(1, _ip(ip)))


def is_local(body: bytes) -> bool:
    """Whether the route in an answer leads to this namespace itself."""
    return body[7] == _LOCAL


def dump_rules(family: int) -> bytearray:
    return message(GETRULE, DUMP, _ROUTE.pack(_AF[family], 0, 0, 0, 0, 0, 0, 0, 0))


def dump_neighbours(index: int) -> bytearray:
    return message(GETNEIGH, DUMP, _NEIGH.pack(0, 0, 0, 0, 0) + _u32(8, index))


def encode(op: Op, index: int) -> bytearray:
    """The message that does `op` on link `index`. MakeLink has none: a pair is made whole."""
    match op:
        case SetLink():
            flags = (UP if op.up else 0, UP) if op.up is not None else (0, 0)
            body = _LINK.pack(0, 0, index, *flags)
            body += _text(3, op.name) if op.name is not None else b""
            body += _attr(1, _mac(op.mac)) if op.mac is not None else b""
            body += _u32(4, op.mtu) if op.mtu is not None else b""
            body += _text(20, op.alias) if op.alias is not None else b""
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
    flags = _PERMANENT | (_NODAD if six else 0)
    body = _ADDR.pack(_AF[6 if six else 4], one.prefix, flags, _UNIVERSE, index) + _attr(2, raw)
    if not six:
        body += _attr(1, raw)
    if not adding:
        return message(DELADDR, ACK, body)
    if one.ours:
        body += _attr(11, bytes((OURS,)))
    return message(NEWADDR, ACK | CREATE | REPLACE, body)


def _route(one: Route, index: int, adding: bool) -> bytearray:
    raw = _ip(one.dst)
    table = one.table if one.table < 256 else _DUMMY_TABLE
    scope = _UNIVERSE if one.gateway or len(raw) == 16 else _LINK_SCOPE
    flags = _ONLINK if one.gateway and adding else 0
    protocol = OURS if one.ours else 4
    family = _AF[6 if len(raw) == 16 else 4]
    body = _ROUTE.pack(family, one.prefix, 0, 0, table, protocol, scope, 1, flags)
    if one.prefix:
        body += _attr(1, raw)
    body += _u32(4, index) + _u32(15, one.table)
    if one.metric:
        body += _u32(6, one.metric)
    if one.gateway:
        body += _attr(5, _ip(one.gateway))
    if adding:
        # neither REPLACE nor EXCL nor APPEND: in front of what others have for the same destination
        return message(NEWROUTE, ACK | CREATE, body)
    return message(DELROUTE, ACK, body)


def _rule(one: Rule, adding: bool) -> bytearray:
    table = one.table if one.table < 256 else _DUMMY_TABLE
    body = _ROUTE.pack(_AF[one.family], 0, one.src_prefix, 0, table, 0, 0, 1, 0)
    if one.src:
        body += _attr(2, _ip(one.src))
    body += _u32(6, one.priority) + _u32(15, one.table) + _attr(21, bytes((OURS,)))
    if one.proto:
        body += _attr(22, bytes((one.proto,)))
    if one.sport:
        body += _attr(23, struct.pack("=HH", *one.sport))
    if one.dport:
        body += _attr(24, struct.pack("=HH", *one.dport))
    return message(NEWRULE, ACK | CREATE | EXCL, body) if adding else message(DELRULE, ACK, body)


def _neighbour(one: Neighbour, index: int, adding: bool) -> bytearray:
    raw = _ip(one.ip)
    state = _PERMANENT if one.permanent else _REACHABLE
    body = _NEIGH.pack(_AF[6 if len(raw) == 16 else 4], index, state, 0, 0) + _attr(1, raw)
    if not adding:
        return message(DELNEIGH, ACK, body)
    body += _attr(2, _mac(one.mac))
    if one.ours:
        body += _attr(12, bytes((OURS,)))
    return message(NEWNEIGH, ACK | CREATE | REPLACE, body)


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in a datagram; a torn end is left out."""
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if size < 16 or at + size > len(data):
            return
        yield kind, flags, sequence, data[at + 16 : at + size]
        at += (size + 3) & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + 4 <= len(body):
        size, kind = _ATTR.unpack_from(body, at)
        if size < 4 or at + size > len(body):
            break
        found[kind & _TYPE_MASK] = body[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def _word(attributes: dict[int, bytes], kind: int, default: int = 0) -> int:
    raw = attributes.get(kind, b"")
    return int.from_bytes(raw[:4], "little" if struct.pack("=H", 1)[0] else "big") if raw else default


def _string(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")


def link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = _attributes(body, 16)
    info = _attributes(attributes.get(18, b""), 0)
    return Link(
        name=_string(attributes, 3),
        index=index,
        mac=attributes.get(1, b"").hex(":"),
        alias=_string(attributes, 20),
        mtu=_word(attributes, 4),
        up=bool(flags & UP),
        carrier=bool(flags & LOWER_UP),
        kind=_string(info, 1),
        peer=_word(attributes, 5),
    )


def address(body: bytes) -> tuple[int, Address] | None:
    """(link index, address) of a global address; None for other scopes and families."""
    family, prefix, _, scope, index = _ADDR.unpack_from(body)
    if scope != _UNIVERSE or family not in _FAMILY:
        return None
    attributes = _attributes(body, 8)
    raw = attributes.get(2) or attributes.get(1)
    if raw is None:
        return None
    ours = attributes.get(11, b"\0")[0] == OURS
    return index, Address(socket.inet_ntop(family, raw), prefix, ours)


def route(body: bytes) -> tuple[int, Route] | None:
    """(link index, route) of a unicast route; None for what the kernel keeps for itself."""
    family, prefix, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    if family not in _FAMILY or kind != 1:
        return None
    attributes = _attributes(body, 12)
    raw = attributes.get(1) or bytes(16 if family == socket.AF_INET6 else 4)
    gateway = attributes.get(5)
    return _word(attributes, 4), Route(
        dst=socket.inet_ntop(family, raw),
        prefix=prefix,
        gateway=socket.inet_ntop(family, gateway) if gateway else "",
        table=_word(attributes, 15, table),
        metric=_word(attributes, 6),
        ours=protocol == OURS,
    )


def rule(body: bytes) -> tuple[bool, Rule] | None:
    """(made by us, rule) of a rule that looks up a table."""
    family, _, src_prefix, _, table, _, _, action, _ = _ROUTE.unpack_from(body)
    if family not in _FAMILY or action != 1:
        return None
    attributes = _attributes(body, 12)
    src = attributes.get(2)
    ours = attributes.get(21, b"\0")[0] == OURS
    return ours, Rule(
        family=_FAMILY[socket.AddressFamily(family)],
        priority=_word(attributes, 6),
        table=_word(attributes, 15, table),
        src=socket.inet_ntop(family, src) if src else "",
        src_prefix=src_prefix,
        proto=attributes.get(22, b"\0")[0],
        sport=_range(attributes.get(23)),
        dport=_range(attributes.get(24)),
    )


def _range(raw: bytes | None) -> tuple[int, int] | None:
    if not raw or len(raw) < 4:
        return None
    low, high = struct.unpack_from("=HH", raw)
    return low, high


def neighbour(body: bytes) -> tuple[int, Neighbour] | None:
    """(link index, entry) of a resolved entry; None for failed ones and those without resolution."""
    family, index, state, _, _ = _NEIGH.unpack_from(body)
    attributes = _attributes(body, 12)
    raw, mac = attributes.get(1), attributes.get(2)
    if family not in _FAMILY or raw is None or mac is None or state & _NO_ENTRY or state == 0x40:
        return None
    ours = attributes.get(12, b"\0")[0] == OURS
    return index, Neighbour(socket.inet_ntop(family, raw), mac.hex(":"), bool(state & _PERMANENT), ours)
