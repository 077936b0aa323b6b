# SPDX-License-Identifier: Apache-2.0
"""How many parts a message has, before it is decoded.

Does:  counts the fields of an encoded message, those of messages inside it too, and refuses one of far too many: an
       empty part takes two bytes on the wire and a hundred times as much in memory.
Place: the edges, for what is not small; a message as we send it has some dozens of fields.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor

from nsm_sdk.errors import InvalidRequest

SMALL = 1 << 15
"""Bytes up to which nothing is counted."""
MOST_FIELDS = 20_000
"""Fields of one message, those inside its parts counted in."""
_DEEPEST = 64


def count_fields(raw: bytes, descriptor: Descriptor) -> int:
    """How many fields there are. InvalidRequest for more than `MOST_FIELDS`, for what is cut off, and for groups."""
    count = 0
    # Of parts that are begun: where they end, and what they are.
    stack: list[tuple[int, Descriptor]] = [(len(raw), descriptor)]
    at = 0
    while stack:
        end, kind = stack[-1]
        if at >= end:
            if at > end:
                raise _cut_off()
            stack.pop()
            continue
        count += 1
        if count > MOST_FIELDS:
            raise InvalidRequest(
                f"a message of {len(raw)} bytes has more than {MOST_FIELDS} fields", hint="send less at once"
            )
        tag, at = (raw[at], at + 1) if raw[at] < 0x80 else _varint(raw, at, end)
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
                    stack.append((at + size, inner))
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
