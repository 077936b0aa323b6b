# SPDX-License-Identifier: Apache-2.0
"""Messages of far too many parts are refused before they are decoded.

Does:  compares what is counted with what is there, and lets nothing but InvalidRequest out of whatever bytes come.
Place: the edges.
State: none.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from nsm_sdk.api import METHODS, NETWORK_SERVICE_REQUEST, Connection, Path, PathSegment, Request
from nsm_sdk.api.limits import MOST_FIELDS, count_fields
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.transport.offers import asked
from tests.untrusted.strategies import messages, wire_bytes

KINDS = sorted({method.request for method in METHODS.values()}, key=lambda kind: str(kind.DESCRIPTOR.full_name))


def counted(message: Message) -> int:
    """Fields as they are encoded: each item of a list and each entry of a map by itself."""
    total = 0
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            total += sum(3 + (counted(value[key]) if inner is not None else 0) for key in value)
        elif field.is_repeated:
            total += sum(1 + (counted(item) if isinstance(item, Message) else 0) for item in value)
        else:
            total += 1 + (counted(value) if isinstance(value, Message) else 0)
    return total


@settings(max_examples=60)
@given(st.data())
def test_the_count_is_right(data: st.DataObject) -> None:
    kind: Any = data.draw(st.sampled_from(KINDS))
    message = data.draw(messages(kind))
    assert count_fields(message.SerializeToString(), kind.DESCRIPTOR) == counted(message)


@given(st.sampled_from(KINDS), st.one_of(wire_bytes, st.binary(max_size=400)))
def test_whatever_bytes_come_are_counted_or_refused(kind: Any, raw: bytes) -> None:
    count = 0
    with contextlib.suppress(InvalidRequest):
        count = count_fields(raw, kind.DESCRIPTOR)
    with contextlib.suppress(DecodeError):
        kind.FromString(raw)
        # Groups can be decoded, though nobody sends any.
        assert count > 0 or not raw or any(byte & 7 in (3, 4) for byte in raw)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("parts", [MOST_FIELDS + 1, 4_000_000])
def test_an_edge_refuses_a_message_of_too_many_parts(parts: int) -> None:
    part = b"\x12\x00"
    body = part * parts
    path = b"\x1a" + _size(len(body)) + body
    raw = b"\x0a" + _size(len(path)) + path
    with pytest.raises(InvalidRequest, match="more than") as caught:
        asked(NETWORK_SERVICE_REQUEST, raw)
    assert caught.value.hint
    assert caught.value.element


def test_an_edge_takes_what_a_mesh_may_send() -> None:
    conn = Connection(id="x", path=Path(path_segments=[PathSegment(name="n", id="i", token="t" * 1000)] * 64))
    conn.context.ip_context.excluded_prefixes.extend(["10.0.0.0/8"] * 4096)
    request = Request(connection=conn)
    assert asked(NETWORK_SERVICE_REQUEST, request.SerializeToString()) == request


def _size(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])
