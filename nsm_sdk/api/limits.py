# SPDX-License-Identifier: Apache-2.0
"""How much a message may have.

Does:  counts the fields of an encoded message, those of messages inside it too, before it is decoded, and refuses one
       of far too many; tells whether a path has too many hops, or an end too many addresses. Nothing else is
       limited but the size of the message: a text or a list that fits is taken, as peers of other make take it.
Place: the edges count what is not small; the first element of every hop that others call looks at lengths, and
       `Connect` at those of answers.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from nsm_sdk.api._gen.connection import Connection
from nsm_sdk.api._gen.registry import NetworkService, NetworkServiceEndpoint
from nsm_sdk.errors import InvalidRequest

SMALL: Final = 1 << 15
"""Bytes up to which the fields of a message are not counted."""
MOST_FIELDS: Final = 100_000
"""Fields of one message, those inside its parts counted in. Each takes two bytes on the wire or more, a hundred times
as much in memory, and some microseconds of every hop."""
MOST_HOPS: Final = 64
"""Hops of a connection's path: one that goes round in a circle has to end."""
MOST_IDS: Final = 256
"""Hops of a registration's path, `path_ids`."""
MOST_ADDRESSES: Final = 8192
"""Addresses of one end of a connection: endpoints and forwarders take up to 0.1 ms for each."""
_DEEPEST: Final = 64
_LESS: Final = "send less at once: see the limits in the documentation (explanation/limits)"
_CIRCLE: Final = "see whether the hops go round in a circle"


def excess(message: Connection | NetworkService | NetworkServiceEndpoint) -> str:
    """Which list is too long, in words; empty where none is."""
    if isinstance(message, Connection):
        if len(segments := message.path.path_segments) > MOST_HOPS:
            return _excess("path.path_segments", len(segments), MOST_HOPS)
        ip = message.context.ip_context
        for name, addresses in (("src_ip_addrs", ip.src_ip_addrs), ("dst_ip_addrs", ip.dst_ip_addrs)):
            if len(addresses) > MOST_ADDRESSES:
                return _excess(f"context.ip_context.{name}", len(addresses), MOST_ADDRESSES)
        return ""
    return _excess("path_ids", len(message.path_ids), MOST_IDS) if len(message.path_ids) > MOST_IDS else ""


def check_lengths(message: Connection | NetworkService | NetworkServiceEndpoint) -> None:
    """InvalidRequest for a path of more hops, or more addresses, than there may be."""
    if what := excess(message):
        raise InvalidRequest(what, hint=_CIRCLE if what.startswith("path") else _LESS)


def _excess(name: str, length: int, most: int) -> str:
    return f"{name} has {length} items, at most {most} are taken"


def count_fields(raw: bytes, descriptor: Descriptor) -> int:
    """How many fields there are. InvalidRequest for more than `MOST_FIELDS`, for what is cut off, and for groups."""
    count = 0
    # Of parts that are begun: where they end, what they are, and the field that holds them.
    stack: list[tuple[int, Descriptor, FieldDescriptor | None]] = [(len(raw), descriptor, None)]
    at = 0
    while stack:
        end, kind, _ = stack[-1]
        if at >= end:
            if at > end:
                raise _cut_off()
            stack.pop()
            continue
        count += 1
        tag, at = (raw[at], at + 1) if raw[at] < 0x80 else _varint(raw, at, end)
        if count > MOST_FIELDS:
            holders = [field.name for _, _, field in stack if field is not None]
            last = kind.fields_by_number.get(tag >> 3)
            names = ".".join([*holders, *([last.name] if last is not None else [])])
            raise InvalidRequest(
                f"a message of {len(raw)} bytes has more than {MOST_FIELDS} fields, the last of them in {names}",
                hint=_LESS,
            )
        match tag & 7:
            case 0:
                _, at = _varint(raw, at, end)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                size, at = (raw[at], at + 1) if at < end and raw[at] < 0x80 else _varint(raw, at, end)
                field = kind.fields_by_number.get(tag >> 3)
                inner = field.message_type if field is not None else None
                if inner is None:
                    at += size
                elif at + size > end:
                    raise _cut_off()
                elif len(stack) >= _DEEPEST:
                    raise InvalidRequest(f"a message has parts in parts, {_DEEPEST} deep", hint="send flatter messages")
                else:
                    stack.append((at + size, inner, field))
            case _:
                raise InvalidRequest("a message has a group, or a field of no known form", hint="send proto3 messages")
    return count


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _cut_off()


def _cut_off() -> InvalidRequest:
    return InvalidRequest("a message is cut off", hint="send it whole")
