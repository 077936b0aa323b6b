# SPDX-License-Identifier: Apache-2.0
"""How settings are written."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Target
from nsm_sdk.cli import codecs
from nsm_sdk.cli.codecs import Codec, Refused, format_duration
from nsm_sdk.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("15s", 15.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1m0.5s", 60.5),
        ("100us", 1e-4),
        ("100µs", 1e-4),
        ("0", 0.0),
        ("0s", 0.0),
        (" 1s ", 1.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert codecs.DURATION(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "1", "15", "s", "-1s", "1 s", "1d", "1s2", "1,5s", "1e3s", "NaN", "9999999h", "."]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(Refused):
        codecs.DURATION(text)


@given(st.integers(0, 10**15))
def test_a_written_duration_reads_the_same(nanoseconds: int) -> None:
    written = format_duration(nanoseconds / 1e9)
    assert round(codecs.DURATION(written) * 1e9) == pytest.approx(nanoseconds, abs=1)


def test_a_duration_that_must_be_above_0() -> None:
    with pytest.raises(Refused):
        codecs.POSITIVE("0s")
    assert codecs.POSITIVE("1ms") == 0.001


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("False", False), ("f", False)])
def test_booleans(text: str, value: bool) -> None:
    assert codecs.BOOLEAN(text) is value


@pytest.mark.parametrize("text", ["", "yes", "on", "tRue", "2"])
def test_no_booleans(text: str) -> None:
    with pytest.raises(Refused):
        codecs.BOOLEAN(text)


KEYS = st.text(string.ascii_letters + string.digits + "-._/", min_size=1)
VALUES = st.text(string.ascii_letters + string.digits + "-._/:")


@given(st.dictionaries(KEYS, VALUES))
def test_labels(labels: dict[str, str]) -> None:
    written = ",".join(f"{key}:{value}" for key, value in labels.items())
    assert codecs.LABELS(written) == labels


@pytest.mark.parametrize("text", ["a", "a:b,", ":b", ",", "a:b,,c:d", "a:b c"])
def test_no_labels(text: str) -> None:
    if text == "a:b c":
        assert codecs.LABELS(text) == {"a": "b c"}
        return
    with pytest.raises(Refused):
        codecs.LABELS(text)


def test_listen_addresses() -> None:
    assert codecs.LISTEN("unix:///run/a.sock, tcp://127.0.0.1:0") == (
        Target("unix", "/run/a.sock"),
        Target("tcp", "127.0.0.1:0"),
    )
    assert codecs.MAYBE_LISTEN("") == ()
    assert len(codecs.LISTEN("tcp://127.0.0.1:0,tcp://127.0.0.1:0")) == 2


@pytest.mark.parametrize(
    "text",
    ["", "inproc://x", "http://x:1", "unix:///a,unix:///a", "tcp://h:1,tcp://h:1", "tcp://h", "tcp://h:70000", ","],
)
def test_no_listen_addresses(text: str) -> None:
    with pytest.raises((Refused, InvalidRequest)):
        codecs.LISTEN(text)


@pytest.mark.parametrize("text", ["", "inproc://x", "tcp://host:0", "host:5001"])
def test_no_addresses_to_call(text: str) -> None:
    with pytest.raises((Refused, InvalidRequest)):
        codecs.ADDRESS(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("blue", "file:///run/netns/blue"),
        ("/proc/7/ns/net", "file:///proc/7/ns/net"),
        ("file:///x", "file:///x"),
        ("", ""),
    ],
)
def test_namespaces(text: str, url: str) -> None:
    assert codecs.NETNS(text) == url


@pytest.mark.parametrize("text", ["a/b", "..", "/proc/self/ns/net", "/proc/thread-self/ns/net"])
def test_no_namespaces(text: str) -> None:
    with pytest.raises(Refused):
        codecs.NETNS(text)


def test_prefixes_and_groups() -> None:
    assert codecs.PREFIXES("[172.16.0.0/16, fd00::/64],10.0.0.0/8") == (("172.16.0.0/16", "fd00::/64"), ("10.0.0.0/8",))
    assert codecs.PREFIXES("") == ()
    assert [[str(url) for url in group] for group in codecs.GROUPS("[kernel://a,kernel://b],[kernel://c]")] == [
        ["kernel://a", "kernel://b"],
        ["kernel://c"],
    ]


@pytest.mark.parametrize("text", ["x", "[10.0.0.0/8", "10.0.0.0/8,10.1.0.0/16", "10.0.0.0"])
def test_no_prefixes(text: str) -> None:
    with pytest.raises(InvalidRequest):
        codecs.PREFIXES(text)


@pytest.mark.parametrize("text", ["auto", "icmp", "arp", "carrier", "none", "tcp:80"])
def test_probes(text: str) -> None:
    assert codecs.PROBE(text) == text


@pytest.mark.parametrize("text", ["", "tcp", "tcp:", "tcp:0", "tcp:65536", "tcp:x", "icmp:1", "udp:1"])
def test_no_probes(text: str) -> None:
    with pytest.raises(Refused):
        codecs.PROBE(text)


ALL = [value for value in vars(codecs).values() if isinstance(value, Codec)]


@pytest.mark.parametrize("codec", ALL, ids=lambda codec: codec.expected)
@given(text=st.text(max_size=40))
def test_whatever_is_written_is_read_or_refused(codec: Codec[Any], text: str) -> None:
    try:
        codec(text)
    except (Refused, InvalidRequest):
        return


def test_service_urls() -> None:
    assert codecs.SERVICES("kernel://a/b?c=d, e@domain/f") == ("kernel://a/b?c=d", "e@domain/f")


@pytest.mark.parametrize(
    "text", ["", "vfio://a", "kernel://", "kernel://a/name-that-is-too-long", "kernel://a,,kernel://b"]
)
def test_no_service_urls(text: str) -> None:
    with pytest.raises((Refused, InvalidRequest)):
        codecs.SERVICES(text)
