# SPDX-License-Identifier: Apache-2.0
"""Path helpers: neighbours, refusals, times, and that no token is ever told."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import (
    Connection,
    Path,
    PathSegment,
    State,
    Timestamp,
    check_path,
    describe,
    expiry,
    first,
    following,
    names,
    previous,
    seconds,
    segment,
    set_expiry,
    timestamp,
    without_tokens,
)
from nsm_sdk.errors import InvalidRequest

TOKEN = "eyJ-this-is-a-secret"


def connection(index: int, *hops: str, id: str | None = None) -> Connection:
    """A connection through the hops; segment ids are "id-<hop>"."""
    segments = [PathSegment(name=hop, id=f"id-{hop}", token=TOKEN) for hop in hops]
    own = id if id is not None else f"id-{hops[index]}"
    return Connection(id=own, network_service="svc", path=Path(index=index, path_segments=segments))


def test_neighbours_in_the_middle() -> None:
    conn = connection(1, "nsc", "nsmgr", "nse")
    before, after = previous(conn), following(conn)
    assert before is not None
    assert after is not None
    assert [first(conn).name, before.name, segment(conn).name, after.name] == ["nsc", "nsc", "nsmgr", "nse"]
    assert names(conn) == ["nsc", "nsmgr", "nse"]


def test_the_ends_have_no_neighbour() -> None:
    assert previous(connection(0, "nsc", "nse")) is None
    assert following(connection(1, "nsc", "nse")) is None


def test_a_segment_is_a_live_part_of_the_connection() -> None:
    conn = connection(0, "nsc")
    segment(conn).name = "other"
    assert names(conn) == ["other"]


@pytest.mark.parametrize("read", [segment, previous, following, check_path])
@pytest.mark.parametrize("index", [2, 3, 2**32 - 1])
def test_an_index_out_of_range_is_refused(read: Callable[[Connection], object], index: int) -> None:
    with pytest.raises(InvalidRequest, match=str(index)) as caught:
        read(connection(index, "nsc", "nse", id="x"))
    assert "2 segments" in caught.value.hint
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("read", [segment, previous, following, first, check_path])
def test_a_connection_without_path_is_refused(read: Callable[[Connection], object]) -> None:
    conn = Connection(id="a")
    with pytest.raises(InvalidRequest) as caught:
        read(conn)
    assert caught.value.hint
    assert not conn.HasField("path")


def test_a_path_in_order_passes() -> None:
    conn = connection(1, "nsc", "nsmgr")
    before = conn.SerializeToString(deterministic=True)
    check_path(conn)
    assert conn.SerializeToString(deterministic=True) == before


def test_an_id_that_is_not_the_segments_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="id-nsmgr") as caught:
        check_path(connection(1, "nsc", "nsmgr", id="stranger"))
    assert "'stranger'" in str(caught.value) or "stranger" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_describe_tells_what_a_human_needs_and_no_token() -> None:
    conn = connection(1, "nsc", "nsmgr", "nse")
    conn.network_service_endpoint_name = "nse-1"
    conn.state = State.DOWN
    assert describe(conn) == "id-nsmgr to svc at nse-1 via nsc > [nsmgr] > nse DOWN"
    assert describe(Connection()) == "without id"


@given(st.text(), st.text(), st.lists(st.text(), max_size=40), st.integers(0, 2**32 - 1))
def test_describe_is_one_short_printable_line(id: str, service: str, hops: list[str], index: int) -> None:
    segments = [PathSegment(name=hop, id=hop, token=TOKEN) for hop in hops]
    text = describe(Connection(id=id, network_service=service, path=Path(index=index, path_segments=segments)))
    assert text.isprintable()
    assert len(text) < 16_000
    assert TOKEN not in text


def test_a_copy_without_tokens_may_be_printed() -> None:
    conn = connection(1, "nsc", "nsmgr")
    conn.path.path_segments[0].token = ""
    shown = without_tokens(conn)
    assert TOKEN not in str(shown)
    assert [hop.token for hop in shown.path.path_segments] == ["", "..."]
    shown.path.path_segments[1].token = TOKEN
    assert shown == conn
    bare = Connection(id="a")
    assert without_tokens(bare) == bare


def test_describe_bounds_what_a_peer_sends() -> None:
    conn = Connection(id="x" * 100_000, path=Path(path_segments=[PathSegment(name="y" * 1000)] * 5000))
    assert len(describe(conn)) < 2000


@given(st.floats(-62_135_596_800, 253_402_300_799))
def test_times_keep_microseconds(at: float) -> None:
    stamp = timestamp(at)
    assert 0 <= stamp.nanos < 1_000_000_000
    # A float of this size has a resolution of its own
    assert seconds(stamp) == pytest.approx(at, abs=1e-6 + math.ulp(at))
    assert stamp.ToJsonString()


@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999))
def test_a_time_that_came_from_a_message_goes_back_to_it(whole: int, micros: int) -> None:
    stamp = Timestamp(seconds=whole, nanos=micros * 1000)
    exact = abs(whole) < 2**32
    again = timestamp(seconds(stamp))
    assert again == stamp if exact else abs(again.ToMicroseconds() - stamp.ToMicroseconds()) < 64


@given(st.floats(allow_nan=False))
def test_any_time_can_be_written(at: float) -> None:
    assert timestamp(at).ToJsonString()


def test_not_a_number_is_no_time() -> None:
    with pytest.raises(InvalidRequest, match="NaN"):
        timestamp(math.nan)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_seconds_of_anything_a_peer_sends_is_a_number(whole: int, nanos: int) -> None:
    assert math.isfinite(seconds(Timestamp(seconds=whole, nanos=nanos)))


def test_expiry_of_a_segment() -> None:
    hop = PathSegment()
    assert expiry(hop) is None
    assert not hop.HasField("expires")
    set_expiry(hop, 1_800_000_000.25)
    assert expiry(hop) == 1_800_000_000.25
    assert (hop.expires.seconds, hop.expires.nanos) == (1_800_000_000, 250_000_000)
