# SPDX-License-Identifier: Apache-2.0
"""What the kernel answers and tells, out of netlink messages.

Does:  decodes dumps and notifications of links, addresses, routes, rules and neighbours.
Place: half of the codec; pure.
State: none.
"""

from __future__ import annotations

import socket
import struct

from nsm_sdk.mechanisms.model import OURS, Address, Link, Neighbour, Route, Rule
from nsm_sdk.netlink.frame import (
    ADDRESS_HEAD,
    FAMILY,
    LINK_HEAD,
    LOWER_UP,
    NEIGHBOUR_HEAD,
    PERMANENT,
    ROUTE_HEAD,
    UNIVERSE,
    UP,
    read_attributes,
)

_NO_ENTRY = 0x01 | 0x20
_LOCAL = 2
_CLONED = 0x200
# loopback, router advertisements, link-local
_KERNEL_ADDRESS = {1, 2, 3}
# redirects, the kernel, router advertisements
_KERNEL_ROUTE = {1, 2, 9}


def link(body: bytes) -> Link:
    _, _, index, flags, _ = LINK_HEAD.unpack_from(body)
    attributes = read_attributes(body, 16)
    info = read_attributes(attributes.get(18, b""), 0)
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
    family, prefix, _, scope, index = ADDRESS_HEAD.unpack_from(body)
    if scope != UNIVERSE or family not in FAMILY:
        return None
    attributes = read_attributes(body, 8)
    raw = attributes.get(2) or attributes.get(1)
    if raw is None:
        return None
    ours = attributes.get(11, b"\0")[0] == OURS
    return index, Address(socket.inet_ntop(family, raw), prefix, ours)


def route(body: bytes) -> tuple[int, Route] | None:
    """(link index, route) of a unicast route; None for what the kernel keeps for itself."""
    family, prefix, _, _, table, protocol, _, kind, _ = ROUTE_HEAD.unpack_from(body)
    if family not in FAMILY or kind != 1:
        return None
    attributes = read_attributes(body, 12)
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
    family, _, src_prefix, _, table, _, _, action, _ = ROUTE_HEAD.unpack_from(body)
    if family not in FAMILY or action != 1:
        return None
    attributes = read_attributes(body, 12)
    src = attributes.get(2)
    ours = attributes.get(21, b"\0")[0] == OURS
    return ours, Rule(
        family=FAMILY[socket.AddressFamily(family)],
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
    family, index, state, _, _ = NEIGHBOUR_HEAD.unpack_from(body)
    attributes = read_attributes(body, 12)
    raw, mac = attributes.get(1), attributes.get(2)
    if family not in FAMILY or raw is None or mac is None or state & _NO_ENTRY or state == 0x40:
        return None
    ours = attributes.get(12, b"\0")[0] == OURS
    return index, Neighbour(socket.inet_ntop(family, raw), mac.hex(":"), bool(state & PERMANENT), ours)


def address_of_others(body: bytes, index: int) -> bool:
    """Whether a dumped address stands on link `index` and was made by somebody else than us and the kernel."""
    family, _, _, _, at = ADDRESS_HEAD.unpack_from(body)
    made_by = read_attributes(body, 8).get(11, b"\0")[0]
    return at == index and family in FAMILY and made_by != OURS and made_by not in _KERNEL_ADDRESS


def route_of_others(body: bytes) -> bool:
    """Whether a dumped route was made by somebody else than us and the kernel."""
    family, _, _, _, _, protocol, _, _, flags = ROUTE_HEAD.unpack_from(body)
    return family in FAMILY and protocol != OURS and protocol not in _KERNEL_ROUTE and not flags & _CLONED


def neighbour_of_others(body: bytes, index: int) -> bool:
    """Whether a dumped entry is one that somebody else has given for good."""
    family, at, state, _, _ = NEIGHBOUR_HEAD.unpack_from(body)
    made_by = read_attributes(body, 12).get(12, b"\0")[0]
    return at == index and family in FAMILY and bool(state & PERMANENT) and made_by != OURS


def route_source(body: bytes) -> str:
    """The preferred source address of a dumped route; empty where it has none."""
    raw = read_attributes(body, 12).get(7)
    return socket.inet_ntop(body[0], raw) if raw else ""


def is_local(body: bytes) -> bool:
    """Whether the route in an answer leads to this namespace itself."""
    return body[7] == _LOCAL


def _word(attributes: dict[int, bytes], kind: int, default: int = 0) -> int:
    raw = attributes.get(kind, b"")
    return int.from_bytes(raw[:4], "little" if struct.pack("=H", 1)[0] else "big") if raw else default


def _string(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")
