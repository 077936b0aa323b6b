# SPDX-License-Identifier: Apache-2.0
"""Netlink messages as bytes: numbers of the protocol, fixed heads, attributes.

Does:  packs a request and its attributes, and takes apart what the kernel sends, torn ends and garbage included, for
       the few objects that a forwarder makes. pyroute2 does the same for every object there is, at 74 us a message
       against 3 us; one connection takes fifteen messages and the kernel about a millisecond for all, so these few are
       written out. The tests compare both with each other. Names and numbers are those of the kernel's headers.
Place: under requests and answers; pure.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

NLMSG_ERROR, NLMSG_DONE = 2, 3
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
DUMP_INTERRUPTED = 0x10

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
LINK_HEAD = struct.Struct("=BxHiII")
ADDRESS_HEAD = struct.Struct("=BBBBI")
ROUTE_HEAD = struct.Struct("=BBBBBBBBI")
NEIGHBOUR_HEAD = struct.Struct("=BxxxiHBB")
U32 = struct.Struct("=I")
NESTED = 0x8000
_TYPE_MASK = 0x3FFF
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
FAMILY = {socket.AF_INET: 4, socket.AF_INET6: 6}


class IFF:
    """Flags of links."""

    UP, LOWER_UP = 0x1, 0x10000


class IFLA:
    """Attributes of links, of what kind they are, and of the other end of a pair."""

    ADDRESS, IFNAME, MTU, LINK, LINKINFO, IFALIAS, NET_NS_FD, EXT_MASK = 1, 3, 4, 5, 18, 20, 28, 29
    INFO_KIND, INFO_DATA = 1, 2
    VETH_INFO_PEER = 1
    RTEXT_FILTER_SKIP_STATS = 8


class IFA:
    """Attributes of addresses, their flags, and by which part of the kernel one was made."""

    ADDRESS, LOCAL, PROTO = 1, 2, 11
    F_NODAD, F_PERMANENT = 0x02, 0x80
    PROT_KERNEL_LO, PROT_KERNEL_RA, PROT_KERNEL_LL = 1, 2, 3


class RTA:
    """Attributes of routes."""

    DST, SRC, OIF, GATEWAY, PRIORITY, PREFSRC, METRICS, MULTIPATH = 1, 2, 4, 5, 6, 7, 8, 9
    FLOW, CACHEINFO, TABLE, MARK, VIA, PREF, ENCAP_TYPE, ENCAP, EXPIRES, NH_ID = 11, 12, 15, 16, 18, 20, 21, 22, 23, 30


class RT:
    """Kinds, origins, scopes, tables and flags of routes."""

    UNICAST, LOCAL = 1, 2
    PROT_REDIRECT, PROT_KERNEL, PROT_STATIC, PROT_RA = 1, 2, 4, 9
    SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
    TABLE_UNSPEC, TABLE_LOCAL = 0, 255
    ONLINK, CLONED = 0x4, 0x200


class FRA:
    """Attributes of rules, and the action that looks up a table."""

    SRC, IIFNAME, PRIORITY, TABLE, PROTOCOL, IP_PROTO, SPORT_RANGE, DPORT_RANGE = 2, 3, 6, 15, 21, 22, 23, 24
    TO_TABLE = 1


class NDA:
    """Attributes of neighbours."""

    DST, LLADDR, IFINDEX, PROTOCOL = 1, 2, 8, 12


class NUD:
    """States of neighbours."""

    INCOMPLETE, REACHABLE, FAILED, NOARP, PERMANENT = 0x01, 0x02, 0x20, 0x40, 0x80


def message(kind: int, flags: int, body: bytes) -> bytearray:
    """A request with sequence number 0; `number` puts the real one in."""
    out = bytearray(_HEADER.pack(16 + len(body), kind, flags | REQUEST, 0, 0))
    out += body
    return out


def number(packet: bytearray, sequence: int) -> None:
    """Writes the sequence number into an encoded message."""
    U32.pack_into(packet, 8, sequence)


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    size = len(data)
    return _ATTR.pack(size + 4, kind) + data + bytes(-size & 3)


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in a datagram; a torn end is left out."""
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if size < 16 or at + size > len(data):
            return
        yield kind, flags, sequence, data[at + 16 : at + size]
        at += (size + 3) & ~3


def read_attributes(body: bytes, at: int) -> dict[int, bytes]:
    """What stands in `body` from `at` on, by number; ends where it is torn."""
    found: dict[int, bytes] = {}
    while at + 4 <= len(body):
        size, kind = _ATTR.unpack_from(body, at)
        if size < 4 or at + size > len(body):
            break
        found[kind & _TYPE_MASK] = body[at + 4 : at + size]
        at += (size + 3) & ~3
    return found
