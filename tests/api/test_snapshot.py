# SPDX-License-Identifier: Apache-2.0
"""Stored connections: equal by content, a new message each time, nothing told but the id."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Mechanism, Path, PathSegment, Snapshot, State

TEXT = st.text(max_size=8)
LABELS = st.dictionaries(TEXT, TEXT, max_size=5)
SEGMENTS = st.lists(st.builds(PathSegment, name=TEXT, id=TEXT, token=TEXT, metrics=LABELS), max_size=4)
CONNECTIONS = st.builds(
    Connection,
    id=TEXT,
    network_service=TEXT,
    labels=LABELS,
    mechanism=st.none() | st.builds(Mechanism, cls=TEXT, type=TEXT, parameters=LABELS),
    path=st.none() | st.builds(Path, index=st.integers(0, 2**32 - 1), path_segments=SEGMENTS),
    state=st.sampled_from(State),
)


@given(CONNECTIONS)
def test_round_trip(conn: Connection) -> None:
    stored = Snapshot.of(conn)
    assert stored.connection() == conn
    assert Snapshot.of(stored.connection()) == stored
    assert stored.id == conn.id


@given(st.permutations([("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]))
def test_the_order_of_labels_does_not_matter(pairs: list[tuple[str, str]]) -> None:
    ordered = Snapshot.of(Connection(labels=dict(sorted(pairs))))
    assert Snapshot.of(Connection(labels=dict(pairs))) == ordered
    assert hash(Snapshot.of(Connection(labels=dict(pairs)))) == hash(ordered)


def test_later_changes_are_not_seen_and_messages_are_not_shared() -> None:
    conn = Connection(id="a")
    stored = Snapshot.of(conn)
    conn.id = "b"
    stored.connection().id = "c"
    assert stored.connection().id == stored.id == "a"


def test_different_connections_differ() -> None:
    assert Snapshot.of(Connection(id="a")) != Snapshot.of(Connection(id="a", payload="IP"))


def test_the_repr_shows_the_id_only() -> None:
    conn = Connection(id="a", path=Path(path_segments=[PathSegment(name="n", token="secret")]))
    assert repr(Snapshot.of(conn)) == "Snapshot(id='a')"


def test_it_cannot_be_changed() -> None:
    stored: Any = Snapshot.of(Connection(id="a"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        stored.id = "b"
    assert not hasattr(stored, "__dict__")
