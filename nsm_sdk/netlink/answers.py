# SPDX-License-Identifier: Apache-2.0
"""What the kernel answers and tells: dumps and notifications of links, addresses, routes, rules and neighbours."""

from __future__ import annotations

import socket
import struct

from nsm_sdk.mechanisms.model import OURS, Address, Link, Neighbour, Route, Rule
from nsm_sdk.netlink.codec import (
    ADDRESS_HEAD,
    FAMILY,
    FRA,
    IFA,
    IFF,
    IFLA,
    LINK_HEAD,
    NDA,
    NEIGHBOUR_HEAD,
    NUD,
    ROUTE_HEAD,
    RT,
    RTA,
    read_attributes,
)

_KERNEL_ADDRESS = {IFA.PROT_KERNEL_LO, IFA.PROT_KERNEL_RA, IFA.PROT_KERNEL_LL}
_KERNEL_ROUTE = {RT.PROT_REDIRECT, RT.PROT_KERNEL, RT.PROT_RA}


def link(body: bytes) -> Link:
    _, _, index, flags, _ = LINK_HEAD.unpack_from(body)
    attributes = read_attributes(body, 16)
    info = read_attributes(attributes.get(IFLA.LINKINFO, b""), 0)
    return Link(
        name=_string(attributes, IFLA.IFNAME),
        index=index,
        mac=attributes.get(IFLA.ADDRESS, b"").hex(":"),
        alias=_string(attributes, IFLA.IFALIAS),
        mtu=_word(attributes, IFLA.MTU),
        up=bool(flags & IFF.UP),
        carrier=bool(flags & IFF.LOWER_UP),
        kind=_string(info, IFLA.INFO_KIND),
        peer=_word(attributes, IFLA.LINK),
    )


def address(body: bytes) -> tuple[int, Address] | None:
    """(link index, address) of a global address; None for other scopes and families."""
    family, prefix, _, scope, index = ADDRESS_HEAD.unpack_from(body)
    if scope != RT.SCOPE_UNIVERSE or family not in FAMILY:
        return None
    attributes = read_attributes(body, 8)
    raw = attributes.get(IFA.LOCAL) or attributes.get(IFA.ADDRESS)
    if raw is None:
        return None
    ours = attributes.get(IFA.PROTO, b"\0")[0] == OURS
    return index, Address(socket.inet_ntop(family, raw), prefix, ours)


def route(body: bytes) -> tuple[int, Route] | None:
    """(link index, route) of a unicast route; None for what the kernel keeps for itself."""
    family, prefix, _, _, table, protocol, _, kind, _ = ROUTE_HEAD.unpack_from(body)
    if family not in FAMILY or kind != RT.UNICAST:
        return None
    attributes = read_attributes(body, 12)
    raw = attributes.get(RTA.DST) or bytes(16 if family == socket.AF_INET6 else 4)
    gateway = attributes.get(RTA.GATEWAY)
    return _word(attributes, RTA.OIF), Route(
        dst=socket.inet_ntop(family, raw),
        prefix=prefix,
        gateway=socket.inet_ntop(family, gateway) if gateway else "",
        table=_word(attributes, RTA.TABLE, table),
        metric=_word(attributes, RTA.PRIORITY),
        ours=protocol == OURS,
    )


def rule(body: bytes) -> tuple[bool, Rule] | None:
    """(made by us, rule) of a rule that looks up a table."""
    family, _, src_prefix, _, table, _, _, action, _ = ROUTE_HEAD.unpack_from(body)
    if family not in FAMILY or action != FRA.TO_TABLE:
        return None
    attributes = read_attributes(body, 12)
    src = attributes.get(FRA.SRC)
    ours = attributes.get(FRA.PROTOCOL, b"\0")[0] == OURS
    return ours, Rule(
        family=FAMILY[socket.AddressFamily(family)],
        priority=_word(attributes, FRA.PRIORITY),
        table=_word(attributes, FRA.TABLE, table),
        src=socket.inet_ntop(family, src) if src else "",
        src_prefix=src_prefix,
        proto=attributes.get(FRA.IP_PROTO, b"\0")[0],
        sport=_range(attributes.get(FRA.SPORT_RANGE)),
        dport=_range(attributes.get(FRA.DPORT_RANGE)),
        enters=attributes.get(FRA.IIFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
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
    raw, mac = attributes.get(NDA.DST), attributes.get(NDA.LLADDR)
    if (
        family not in FAMILY
        or raw is None
        or mac is None
        or state & (NUD.INCOMPLETE | NUD.FAILED)
        or state == NUD.NOARP
    ):
        return None
    ours = attributes.get(NDA.PROTOCOL, b"\0")[0] == OURS
    return index, Neighbour(socket.inet_ntop(family, raw), mac.hex(":"), bool(state & NUD.PERMANENT), ours)


def address_of_others(body: bytes, index: int) -> bool:
    """Whether a dumped address stands on link `index` and was made by somebody else than us and the kernel."""
    family, _, _, _, at = ADDRESS_HEAD.unpack_from(body)
    made_by = read_attributes(body, 8).get(IFA.PROTO, b"\0")[0]
    return at == index and family in FAMILY and made_by != OURS and made_by not in _KERNEL_ADDRESS


def route_of_others(body: bytes) -> bool:
    """Whether a dumped route was made by somebody else than us and the kernel."""
    family, _, _, _, _, protocol, _, _, flags = ROUTE_HEAD.unpack_from(body)
    return family in FAMILY and protocol != OURS and protocol not in _KERNEL_ROUTE and not flags & RT.CLONED


def neighbour_of_others(body: bytes, index: int) -> bool:
    """Whether a dumped entry is one that somebody else has given for good."""
    family, at, state, _, _ = NEIGHBOUR_HEAD.unpack_from(body)
    made_by = read_attributes(body, 12).get(NDA.PROTOCOL, b"\0")[0]
    return at == index and family in FAMILY and bool(state & NUD.PERMANENT) and made_by != OURS


def route_source(body: bytes) -> str:
    """The preferred source address of a dumped route; empty where it has none."""
    raw = read_attributes(body, 12).get(RTA.PREFSRC)
    return socket.inet_ntop(body[0], raw) if raw else ""


def is_local(body: bytes) -> bool:
    """Whether the route in an answer leads to this namespace itself."""
    return body[7] == RT.LOCAL


def _word(attributes: dict[int, bytes], kind: int, default: int = 0) -> int:
    raw = attributes.get(kind, b"")
    return int.from_bytes(raw[:4], "little" if struct.pack("=H", 1)[0] else "big") if raw else default


def _string(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")
