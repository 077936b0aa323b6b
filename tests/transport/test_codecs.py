# SPDX-License-Identifier: Apache-2.0
"""What travels beside the messages, as pure functions.

Does:  errors to the wire and back, times, metadata, targets; by generated examples.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Target
from nsm_sdk.api.tokens import format_time
from nsm_sdk.core import Bound
from nsm_sdk.errors import InvalidRequest, NsmError, Status, from_status
from nsm_sdk.transport import Dialer, listen
from nsm_sdk.transport.metadata import checked, incoming
from nsm_sdk.transport.status import clean, decode, encode

plain = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=100).filter(lambda s: "eyJ" not in s)
anything = st.text(max_size=5000)
codes = st.sampled_from([status for status in Status if status is not Status.OK])


@given(codes, plain, plain, plain, plain, st.lists(plain.filter(bool), max_size=8))
def test_an_error_comes_back_as_it_went(
    status: Status, text: str, hint: str, hop: str, element: str, trail: list[str]
) -> None:
    sent = from_status(status, text, hint=hint, hop=hop, element=element, trail=tuple(trail))
    failure = encode(sent, hop)
    back = decode(failure.status, failure.text, failure.trail, "peer")
    assert type(back) is type(sent)
    assert (back.status, back.message, back.hint, back.element) == (status, text, hint, element)
    assert back.trail == sent.trail
    assert back.hop == (hop or "peer")


@given(plain.filter(bool), plain.filter(bool), st.lists(plain.filter(bool), max_size=8))
def test_each_hop_puts_itself_before_the_trail(origin: str, hop: str, trail: list[str]) -> None:
    error = NsmError("text", hop=origin, trail=tuple(trail))
    back = decode(2, "text", encode(error, hop).trail, "peer")
    assert back.hop == origin
    assert back.trail == (tuple(trail) if hop == origin else (hop, *trail))


@given(anything, anything, anything, anything, st.lists(anything, max_size=40))
def test_what_is_sent_is_bounded_and_can_be_sent(
    text: str, hint: str, hop: str, element: str, trail: list[str]
) -> None:
    failure = encode(NsmError(text, hint=hint, hop=hop, element=element, trail=tuple(trail)), "me")
    assert len(failure.text) <= 2048
    failure.text.encode()
    assert len(failure.trail) <= 20_000
    assert isinstance(json.loads(failure.trail), dict)


@given(st.integers(-5, 99), st.text(max_size=300), st.binary(max_size=300), plain)
def test_whatever_a_peer_answers_is_an_error_of_ours(code: int, text: str, trail: bytes, peer: str) -> None:
    error = decode(code, text, trail, peer)
    assert error.status is not Status.OK
    assert str(error) is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["hop", "element", "hint", "trail", "more"]), json_values) | json_values)
def test_a_trailer_of_any_shape_is_read(parts: object) -> None:
    error = decode(5, "text", json.dumps(parts).encode(), "peer")
    assert isinstance(error.hop, str)
    assert all(isinstance(name, str) for name in error.trail)


def test_the_worst_trail_of_ours_is_accepted_by_ours() -> None:
    error = NsmError("m", hint="ü" * 600, hop="ü" * 200, element="ü" * 200, trail=tuple("ü" * 200 for _ in range(30)))
    failure = encode(error, "x" * 200)
    back = decode(2, "m", failure.trail, "peer")
    assert len(back.trail) == 16
    assert back.hop.startswith("üü")


@pytest.mark.parametrize("status", [Status.OK, 0])
def test_an_error_is_never_ok(status: Status) -> None:
    error = NsmError("text")
    error.status = Status(status)
    assert encode(error, "").status is Status.UNKNOWN
    assert decode(0, "", b"", "").status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln is bad", "token <token> is bad"),
        ('{"token":"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0."}', '{"token":"<token>"}'),
        ("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0", "<token>"),
        ("hey, eyJack.son is no token", "hey, eyJack.son is no token"),
        ("line\nnext\x00\x1b[31m", "line\nnext??[31m"),
    ],
)
def test_texts_are_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.integers(0, 999_999))
def test_times_are_written_as_go_writes_them(when: datetime, micros: int) -> None:
    when = when.replace(microsecond=micros, tzinfo=UTC)
    text = format_time(when.timestamp())
    whole, _, fraction = text.removesuffix("Z").partition(".")
    assert text.endswith("Z")
    assert len(fraction) <= 9
    assert not fraction.endswith("0")
    assert "." not in text or fraction
    back = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    back += timedelta(seconds=float(f"0.{fraction or 0}"))
    assert abs(back - when) < timedelta(microseconds=2)


def test_a_whole_second_has_no_fraction() -> None:
    assert format_time(1_795_471_453.0) == "2026-11-23T22:04:13Z"
    assert format_time(1_795_471_453.25) == "2026-11-23T22:04:13.25Z"
    assert format_time(0.0) == "1970-01-01T00:00:00Z"


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=4))
def test_metadata_is_sent_as_it_is_or_refused(headers: dict[str, str]) -> None:
    refused = ""
    try:
        pairs = checked(headers)
    except InvalidRequest as error:
        refused = error.message
    if refused:
        assert all(value not in refused for value in headers.values() if len(value) > 12)
        return
    assert incoming(pairs) == headers
    for key, value in pairs:
        assert key == key.lower()
        assert not key.endswith("-bin")
        (key + value).encode("ascii")


@pytest.mark.parametrize("key", ["grpc-status", ":path", "a b", "A", "x-bin", "", "ä", "a\n"])
def test_keys_that_belong_to_others(key: str) -> None:
    with pytest.raises(InvalidRequest):
        checked({key: "x"})


@given(st.text(max_size=60) | st.builds("{}:{}".format, st.sampled_from(["unix", "tcp", "inproc"]), st.text()))
def test_any_url_makes_a_target_or_a_clear_error(url: str) -> None:
    dialer = Dialer()
    target: Target | None = None
    with contextlib.suppress(InvalidRequest):
        target = Target.parse(url)
    if target is None:
        for use in (dialer, listen):
            with pytest.raises(InvalidRequest) as caught:
                use(url)
            assert caught.value.hint
        return
    assert isinstance(dialer(url), Bound)
    assert dialer(target.url) is dialer(url), "two spellings of one address share a connection"
    assert dialer.connections == 1
    assert callable(listen(url))


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_pool_keeps_the_latest(order: list[int]) -> None:
    dialer = Dialer(idle=5)
    latest: dict[int, Bound] = {}
    for number in order:
        latest.pop(number, None)
        latest[number] = dialer(f"inproc://p{number}")
        assert dialer.connections <= 5
    for number in list(latest)[-5:]:
        assert dialer(f"inproc://p{number}") is latest[number]
