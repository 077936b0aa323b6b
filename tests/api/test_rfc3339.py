# SPDX-License-Identifier: Apache-2.0
"""Times as texts.

Does:  round trips, odd forms, and texts that are none.
Place: nsm_sdk.api.tokens.
State: none.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Timestamp
from nsm_sdk.api.tokens import format_time, parse_time
from nsm_sdk.errors import InvalidRequest

YEAR_1 = -62_135_596_800
YEAR_9999 = 253_402_300_799


@given(st.integers(YEAR_1, YEAR_9999), st.integers(0, 999_999_999))
def test_what_is_written_reads_the_same_to_the_nanosecond(whole: int, nanos: int) -> None:
    ts = Timestamp(seconds=whole, nanos=nanos)
    assert parse_time(format_time(ts)) == ts


@given(st.floats(YEAR_1, YEAR_9999))
def test_seconds_keep_their_microseconds(at: float) -> None:
    ts = parse_time(format_time(at))
    assert ts.seconds + ts.nanos / 1e9 == pytest.approx(at, abs=1e-5)


@given(st.text(alphabet="0123456789-:.TZ+ tz", max_size=40))
def test_any_text_is_a_time_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert YEAR_1 <= parse_time(text).seconds <= YEAR_9999


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("1970-01-01T00:00:01.5Z", 1, 500_000_000),
        ("1970-01-01T02:30:00+02:00", 1800, 0),
        ("1969-12-31T23:00:00-01:30", 1800, 0),
        ("1970-01-01t00:00:00.000000001z", 0, 1),
        ("1970-01-01T00:00:00.1234567899Z", 0, 123_456_789),
        ("0001-01-01T00:00:00Z", YEAR_1, 0),
    ],
)
def test_forms(text: str, seconds: int, nanos: int) -> None:
    assert parse_time(text) == Timestamp(seconds=seconds, nanos=nanos)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2024-13-01T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00",
        "2024-01-01 00:00:00Z",
        "2024-01-01T00:00:00+24:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "٢٠٢٤-01-01T00:00:00Z",
        "2024-01-01T00:00:00Z\n",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_time(text)
    assert caught.value.hint


def test_zeros_at_the_end_are_left_out() -> None:
    assert format_time(Timestamp(seconds=0, nanos=120_000_000)) == "1970-01-01T00:00:00.12Z"
    assert format_time(0.0) == "1970-01-01T00:00:00Z"
