# SPDX-License-Identifier: Apache-2.0
"""The public surface of nsm_sdk.api: names, values of enums, unknown fields, and messages beside another package's."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from types import ModuleType

import pytest

from nsm_sdk import api
from nsm_sdk.api import (
    Connection,
    ConnectionContext,
    ConnectionEvent,
    EventType,
    Mechanism,
    Message,
    Path,
    PathSegment,
    State,
    Timestamp,
)

# What another package would have loaded: the same file name, the same message, other fields
CONFLICT = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
def load():
    file = descriptor_pb2.FileDescriptorProto(name="connection.proto", package="connection", syntax="proto3")
    file.message_type.add(name="Connection").field.add(name="other", number=1, type=5, label=1)
    descriptor_pool.Default().Add(file)
    found = descriptor_pool.Default().FindMessageTypeByName("connection.Connection")
    return message_factory.GetMessageClass(found)
"""
OURS = """
from nsm_sdk.api import Connection, Path, PathSegment, Timestamp
conn = Connection(id="a", path=Path(path_segments=[PathSegment(name="n", expires=Timestamp(seconds=5))]))
assert Connection.FromString(conn.SerializeToString()) == conn
"""


def test_all_names_exist_and_nothing_public_is_left_out() -> None:
    listed = api.__all__
    assert len(set(listed)) == len(listed)
    assert all(hasattr(api, name) for name in listed)
    public = {
        name for name, value in vars(api).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(listed)


@pytest.mark.parametrize("code", [CONFLICT + "load()" + OURS, CONFLICT + OURS + "\nload()" + OURS])
def test_stubs_of_another_package_may_be_loaded_before_or_after(code: str) -> None:
    code += "\nother = load.__globals__['descriptor_pool'].Default().FindMessageTypeByName('connection.Connection')"
    code += "\nassert [field.name for field in other.fields] == ['other']"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_grpc_is_not_imported() -> None:
    code = "import sys, nsm_sdk.api; print([name for name in sys.modules if name.split('.')[0] == 'grpc'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_states_are_numbers_in_messages() -> None:
    conn = Connection(state=State.REFRESH_REQUESTED)
    assert conn.state == State.REFRESH_REQUESTED
    assert int(State.REFRESH_REQUESTED) == 2
    conn.state = State.DOWN
    assert State(conn.state) is State.DOWN
    event = ConnectionEvent(type=EventType.DELETE, connections={"a": conn})
    assert ConnectionEvent.FromString(event.SerializeToString()).connections["a"].state == State.DOWN


def test_a_state_of_the_future_survives() -> None:
    conn = Connection()
    conn.state = 77
    again = Connection.FromString(conn.SerializeToString())
    assert again.state == 77
    assert api.state_name(again.state) == "STATE_77"


def test_timestamps_keep_the_helpers_of_the_well_known_type() -> None:
    now = Timestamp()
    now.GetCurrentTime()
    assert now.seconds > 1_600_000_000
    stamp = Timestamp()
    stamp.FromJsonString("2026-04-07T01:02:03.000000004Z")
    assert stamp.ToNanoseconds() % 1_000_000_000 == 4
    stamp.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    assert PathSegment(expires=stamp).expires.ToSeconds() == 1_577_836_800


# Field 1000, wire type 2, three bytes; field 1001, a varint
UNKNOWN = bytes([0xC2, 0x3E, 3]) + b"abc" + bytes([0xC8, 0x3E, 7])


@pytest.mark.parametrize(
    "kind", [Connection, Path, PathSegment, Mechanism, ConnectionContext, api.NetworkServiceEndpoint, api.PrefixRequest]
)
def test_unknown_fields_survive(kind: type[Message]) -> None:
    assert kind.FromString(UNKNOWN).SerializeToString() == UNKNOWN


def test_unknown_fields_survive_inside_and_through_copies() -> None:
    conn = Connection(id="a")
    conn.path.path_segments.append(PathSegment.FromString(UNKNOWN))
    copied = Connection()
    copied.CopyFrom(conn)
    stored = api.Snapshot.of(copied).connection()
    assert stored.path.path_segments[0].SerializeToString() == UNKNOWN
