# SPDX-License-Identifier: Apache-2.0
"""Addresses of hops: URL, gRPC text and socket pair of each, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Target
from nsm_sdk.errors import InvalidRequest
from tests.api.tables import REFUSED, answer


@pytest.mark.parametrize(
    ("text", "network", "address", "url", "grpc"),
    [
        ("unix:///run/a.sock", "unix", "/run/a.sock", "unix:///run/a.sock", "unix:///run/a.sock"),
        ("unix:/run/a.sock", "unix", "/run/a.sock", "unix:///run/a.sock", "unix:///run/a.sock"),
        ("unix:a.sock", "unix", "a.sock", "unix://a.sock", "unix:a.sock"),
        ("unix://@name", "unix", "@name", "unix://@name", "unix-abstract:name"),
        ("unix:///run/a%20b", "unix", "/run/a b", "unix:///run/a%20b", "unix:///run/a b"),
        ("tcp://127.0.0.1:5000", "tcp", "127.0.0.1:5000", "tcp://127.0.0.1:5000", "127.0.0.1:5000"),
        ("TCP://host:1/", "tcp", "host:1", "tcp://host:1", "host:1"),
        ("tcp://[fd00::1]:5000", "tcp", "[fd00::1]:5000", "tcp://[fd00::1]:5000", "[fd00::1]:5000"),
        ("tcp://:0", "tcp", ":0", "tcp://:0", ":0"),
    ],
)
def test_forms(text: str, network: str, address: str, url: str, grpc: str) -> None:
    target = Target.parse(text)
    assert (target.network, target.address, target.url, str(target), target.grpc) == (network, address, url, url, grpc)
    assert Target.from_grpc(target.grpc) == target


def test_in_process() -> None:
    target = Target.parse("inproc://nsmgr-1")
    assert (target.network, target.address, target.url) == ("inproc", "nsmgr-1", "inproc://nsmgr-1")
    with pytest.raises(InvalidRequest, match="gRPC"):
        _ = target.grpc


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("tcp://h:80", "h", 80), ("tcp://[fd00::1]:5", "fd00::1", 5), ("tcp://:7", "", 7), ("unix:///a", "", 0)],
)
def test_host_and_port(text: str, host: str, port: int) -> None:
    target = Target.parse(text)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:5000",
        "//host:5000",
        "inode://4/5",
        "http://host:80",
        "tcp:host:80",
        "tcp://host",
        "tcp://host:",
        "tcp://host:65536",
        "tcp://host:99999999",
        "tcp://fd00::1:5",
        "tcp://user@host:5",
        "tcp://ho st:5",
        "tcp://host:5/path",
        "unix:",
        "unix://",
        "unix://@",
        "unix:///a%00b",
        "unix:///a%ff",
        "unix:///a\ud800",
        "tcp://\ud800:1",
        "tcp://a\x01b:1",
        "inproc://\ud800",
        "unix:///" + "x" * 107,
        "inproc://",
        "inproc://a b",
        "inproc://a/b",
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Target.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize("network", ["udp", ""])
def test_a_socket_of_another_network_is_refused(network: str) -> None:
    with pytest.raises(InvalidRequest, match="network"):
        Target.from_socket(network, "host:1")


@pytest.mark.parametrize(("target", "address"), [("dns:///host:5", "host:5"), ("dns:host:5", "host:5")])
def test_names_to_be_resolved(target: str, address: str) -> None:
    assert Target.from_grpc(target) == Target("tcp", address)


@given(st.text(max_size=40) | st.text("unixtcp:/@%[]2F01.", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    answers = [
        answer(lambda: Target.parse(text)),
        answer(lambda: Target.from_grpc(text)),
        answer(lambda: Target.from_socket("tcp", text)),
    ]
    for found in answers:
        if isinstance(found, Target):
            assert Target.parse(found.url) == found
        else:
            assert found == REFUSED


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=25))
def test_round_trip_of_socket_paths(name: str) -> None:
    target = Target("unix", f"/{name}")
    assert Target.parse(target.url) == target
