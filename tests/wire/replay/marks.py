# SPDX-License-Identifier: Apache-2.0
"""Fields of a version to come.

Does:  puts a field that nobody knows into a message and into every message inside it, and tells where it is missing.
Place: replays that ask whether unknown fields survive our hops.
State: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

FIELD = 1999
_RAW = b"\xfa\x7c\x04\x6e\x65\x77\x21"
"""Field 1999, four bytes long: "new!"."""
_PLAIN = frozenset({"google.protobuf.Timestamp"})


def inside(message: Message, where: str = "") -> Iterator[tuple[str, Any]]:
    """The message and every message inside, each with the names of the fields that lead there."""
    yield where or ".", message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name in _PLAIN:
            continue
        name = f"{where}.{field.name}"
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(value):
                    yield from inside(value[key], f"{name}[{key}]")
        elif isinstance(value, Message):
            yield from inside(value, name)
        else:
            for at, one in enumerate(value):
                yield from inside(one, f"{name}[{at}]")


def mark(message: Any) -> Any:
    """A copy that a newer peer might have sent."""
    copy = type(message)()
    copy.CopyFrom(message)
    for _, one in list(inside(copy)):
        one.MergeFromString(_RAW)
    return copy


def unmarked(message: Message) -> set[str]:
    """Where the field is missing."""
    return {where for where, one in inside(message) if not _has_it(one)}


def _has_it(message: Message) -> bool:
    fields: Any = UnknownFieldSet(message)
    return any(field.field_number == FIELD for field in fields)
