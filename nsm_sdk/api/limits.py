# SPDX-License-Identifier: Apache-2.0
"""How much of anything a peer's message may have.

Does:  tells what of a message is too much: lists, maps and texts have limits, by field, far above what a mesh needs and
       far below what would keep a hop busy. Small messages are not looked into: nothing that fits into them hurts.
Place: the first element of every hop that others call, and `Connect` for what the next hop answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nsm_sdk.api.tokens import MAX_TOKEN_CHARS
from nsm_sdk.errors import InvalidRequest

SMALL: Final = 8192
"""Bytes up to which a message is not looked into."""
ITEMS: Final = 1024
"""Items of any other list or map."""
CHARACTERS: Final = 4096
"""Characters of any other text; also of names and values in maps."""

MOST_ITEMS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "path_segments": 64,
        "path_ids": 256,
        "mechanism_preferences": 64,
        "parameters": 64,
        "metrics": 256,
        "src_ip_addrs": 128,
        "dst_ip_addrs": 128,
        "excluded_prefixes": 4096,
        "policies": 128,
        "matches": 128,
        "routes": 256,
        "extra_prefix_request": 64,
    }
)
"""Items of a list or map, by the name of its field."""

LONGEST: Final[Mapping[str, int]] = MappingProxyType(
    {"token": MAX_TOKEN_CHARS, "parameters": 16_384, "extra_context": 65_536}
)
"""Characters of a text, or of the values of a map, by the name of its field."""


def excess(message: Message, size: int) -> str:
    """What of a message of `size` bytes is too much, in words; empty where nothing is."""
    return _look(message, "") if size > SMALL else ""


def check_limits(message: Message, size: int) -> None:
    """InvalidRequest for a message of `size` bytes of which anything is too much."""
    if size > SMALL and (what := _look(message, "")):
        raise InvalidRequest(what, hint="send less of it: see the limits in the documentation (explanation/limits)")


def _look(message: Message, where: str) -> str:
    for field, value in message.ListFields():
        name = f"{where}{field.name}"
        if field.is_repeated:
            most = MOST_ITEMS.get(field.name, ITEMS)
            if len(value) > most:
                return f"{name} has {len(value)} items, at most {most} are taken"
            found = _look_in(field, value, name)
        elif field.message_type is not None:
            found = _look(value, f"{name}.")
        else:
            found = _long(field.name, value, name)
        if found:
            return found
    return ""


def _look_in(field: FieldDescriptor, items: Any, name: str) -> str:
    """The items of a list or a map."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        for key, value in items.items():
            found = _long("", key, f"a key of {name}") or (
                _look(value, f"{name}[].")
                if isinstance(value, Message)
                else _long(field.name, value, f"a value of {name}")
            )
            if found:
                return found
        return ""
    for item in items:
        found = (
            _look(item, f"{name}[].") if isinstance(item, Message) else _long(field.name, item, f"an item of {name}")
        )
        if found:
            return found
    return ""


def _long(field: str, value: object, name: str) -> str:
    longest = LONGEST.get(field, CHARACTERS)
    if isinstance(value, str) and len(value) > longest:
        return f"{name} has {len(value)} characters, at most {longest} are taken"
    return ""
