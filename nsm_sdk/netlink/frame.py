# SPDX-License-Identifier: Apache-2.0
"""The frame of netlink messages: numbers of the protocol, fixed heads, attributes.

Does:  packs a request and its attributes, and takes apart what the kernel sends, torn ends and garbage included.
Place: under requests and answers; pure.
State: none.
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
UP, LOWER_UP = 0x1, 0x10000


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

UNIVERSE = 0
"""The scope of what holds everywhere."""
PERMANENT = 0x80
"""A flag of addresses and a state of neighbours: no end."""


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
