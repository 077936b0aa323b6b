# SPDX-License-Identifier: Apache-2.0
"""Connections of one client stay out of each other's way, and a manager's cluster prefixes reach every request.

Does:  checks what is added to requests, what is learned and forgotten, and what the prefix file may look like.
Place: tests of `nsm_sdk.ipam.excluded` and `nsm_sdk.ipam.excluded`.
State: none.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection
from nsm_sdk.errors import FailedPrecondition, InvalidRequest, Unavailable
from nsm_sdk.ipam import ClusterPrefixes, ExcludedPrefixes, PrefixesFile
from nsm_sdk.ipam.excluded import merged, parse_prefixes
from tests.ipam.driver import Hop, connection


def _excluded(conn: Connection) -> list[str]:
    return list(conn.context.ip_context.excluded_prefixes)


class Endpoint:
    """Gives every connection id the address that the test says."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses

    def __call__(self, conn: Connection) -> None:
        context = conn.context.ip_context
        if conn.id in self.addresses and self.addresses[conn.id] not in context.src_ip_addrs:
            del context.src_ip_addrs[:]
            context.src_ip_addrs.append(self.addresses[conn.id])


def _fail(conn: Connection) -> None:
    raise Unavailable("nobody is there")


def test_a_refresh_forgets_what_others_no_longer_use() -> None:
    hop = Hop(ExcludedPrefixes())
    hop.below.answer = Endpoint(a="10.0.0.1/32", b="10.0.0.2/32", c="10.0.0.3/32")
    first = hop.request(connection("a"))
    second = hop.request(connection("b", excluded=("10.96.0.0/12",)))
    assert _excluded(second) == ["10.96.0.0/12", "10.0.0.1/32"]
    hop.close(first)
    second = hop.request(second)
    assert _excluded(second) == ["10.96.0.0/12"]
    third = hop.request(connection("c"))
    assert _excluded(third) == ["10.0.0.2/32", "10.96.0.0/12"]
    for _ in range(3):
        third = hop.request(third)
    assert _excluded(third) == ["10.0.0.2/32", "10.96.0.0/12"]
    hop.close(second)
    assert _excluded(hop.request(third)) == []


def test_a_failure_leaves_the_callers_list_and_learns_nothing() -> None:
    hop = Hop(ExcludedPrefixes())
    hop.below.answer = Endpoint(a="10.0.0.1/32")
    hop.request(connection("a"))
    hop.below.answer = _fail
    with pytest.raises(Unavailable):
        hop.request(connection("b", excluded=("10.96.0.0/12",)))
    hop.below.answer = Endpoint(c="10.0.0.3/32")
    assert _excluded(hop.request(connection("c"))) == ["10.0.0.1/32"]


def test_a_first_answer_with_an_address_in_use_is_refused_and_closed() -> None:
    hop = Hop(ExcludedPrefixes())
    hop.below.answer = Endpoint(a="10.0.0.1/32", b="10.0.0.1/32")
    hop.request(connection("a"))
    with pytest.raises(FailedPrecondition, match=r"IP 10\.0\.0\.1 is excluded") as caught:
        hop.request(connection("b"))
    assert "awareness group" in caught.value.hint
    assert [conn.id for conn in hop.below.closes] == ["b"]
    assert hop.events.posted == []


def test_a_refresh_that_gives_an_address_in_use_goes_elsewhere() -> None:
    hop = Hop(ExcludedPrefixes())
    hop.below.answer = Endpoint(a="10.0.0.1/32", b="10.0.0.2/32")
    hop.request(connection("a"))
    second = hop.request(connection("b"))
    hop.below.answer = Endpoint(b="10.0.0.1/32")
    with pytest.raises(FailedPrecondition):
        hop.request(second)
    assert hop.events.posted == ["reselect"]


def test_its_own_addresses_are_not_excluded() -> None:
    hop = Hop(ExcludedPrefixes())
    hop.below.answer = Endpoint(a="10.0.0.1/32")
    first = hop.request(connection("a"))
    assert hop.request(first) == first
    restarted = hop.request(connection("a again", src=("10.0.0.1/32",)))
    assert _excluded(restarted) == []


def test_services_of_a_group_may_overlap() -> None:
    hop = Hop(ExcludedPrefixes([["kernel://one", "kernel://two"]]))
    hop.below.answer = Endpoint(a="10.0.0.1/32", b="10.0.0.1/32", c="10.0.0.3/32")

    def of(id_: str, service: str) -> Connection:
        conn = connection(id_)
        conn.network_service = service
        conn.mechanism.type = "KERNEL"
        return conn

    assert _excluded(hop.request(of("a", "one"))) == []
    assert _excluded(hop.request(of("b", "two"))) == []
    assert _excluded(hop.request(of("c", "three"))) == ["10.0.0.1/32"]
    assert _excluded(hop.request(connection("no mechanism at all"))) == ["10.0.0.3/32", "10.0.0.1/32"]
    with pytest.raises(InvalidRequest):
        ExcludedPrefixes([["not a url"]])


def test_a_manager_adds_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "excluded_prefixes.yaml"
    hop = Hop(ClusterPrefixes(PrefixesFile(path)))
    assert _excluded(hop.request(connection(excluded=("192.168.0.0/16",)))) == ["192.168.0.0/16"]
    path.write_text("prefixes:\n- 10.1.0.0/16\n- 10.0.0.0/16\n- fd00::/64\n")
    assert _excluded(hop.request(connection(excluded=("192.168.0.0/16", "fd00::/64")))) == [
        "192.168.0.0/16",
        "fd00::/64",
        "10.0.0.0/15",
    ]
    path.unlink()
    assert _excluded(hop.request(connection())) == []


def test_a_file_that_cannot_be_understood_keeps_the_old_prefixes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prefixes"
    path.write_text("prefixes: [10.0.0.0/8]")
    source = PrefixesFile(path)
    assert source() == ("10.0.0.0/8",)
    path.write_text("prefixes: [rubbish, 10.0.0.0/8]")
    with caplog.at_level(logging.WARNING, "nsm_sdk.ipam"):
        assert source() == ("10.0.0.0/8",)
        assert source() == ("10.0.0.0/8",)
    assert len(caplog.records) == 1
    path.write_bytes(b"\xff\xfe\x00")
    assert source() == ("10.0.0.0/8",)
    path.write_text("prefixes: []")
    assert source() == ()
    os.unlink(path)
    path.mkdir()
    assert source() == ()


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        ("", []),
        ("prefixes:", []),
        ("prefixes: null", []),
        ("prefixes: []", []),
        ("prefixes: [10.0.0.0/8, 'fd00::/64']", ["10.0.0.0/8", "fd00::/64"]),
        ('{"prefixes": ["10.0.0.0/8"]}', ["10.0.0.0/8"]),
        ("{}", []),
        (
            '---\n# written by hand\nprefixes:\n  - "10.0.0.0/8"  # the pods\n\n  - fd00::/64\n',
            ["10.0.0.0/8", "fd00::/64"],
        ),
        ("other:\n  - x\nprefixes:\n- 10.0.0.0/8\nmore: y\n", ["10.0.0.0/8"]),
    ],
)
def test_files_that_are_understood(text: str, prefixes: list[str]) -> None:
    assert parse_prefixes(text) == prefixes


@pytest.mark.parametrize(
    "text",
    [
        "rubbish",
        "prefixes: 10.0.0.0/8",
        "prefixes:\n  - rubbish",
        "prefixes:\n  10.0.0.0/8",
        '{"prefixes": ',
        '{"prefixes": 7}',
        '{"prefixes": ["x"]}',
    ],
)
def test_files_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_prefixes(text)


@given(st.text(alphabet='prefixes: -[],{}"\n10./8#', max_size=40))
def test_any_file_is_read_or_refused(text: str) -> None:
    try:
        found = parse_prefixes(text)
    except InvalidRequest:
        found = []
    assert merged(merged(found)) == merged(found)
