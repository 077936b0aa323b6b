# SPDX-License-Identifier: Apache-2.0
"""Texts from peers are read or refused, never crash.

Does:  round trips of CIDR texts and groups, and rubbish.
Place: tests of `nsm_sdk.ipam.addresses` and `nsm_sdk.ipam.groups`.
State: none.
"""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.errors import InvalidRequest
from nsm_sdk.ipam.addresses import Network, parse_address, parse_interface, parse_network, readable_networks
from nsm_sdk.ipam.groups import parse_groups

prefixes = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: f"{pair[0]}/{pair[1]}")


@given(prefixes)
def test_a_cidr_keeps_its_host_part(text: str) -> None:
    found = parse_interface(text)
    if found.version == ip_interface(text).version:
        assert found == ip_interface(text)
    assert parse_network(text) == found.network
    assert parse_address(text) == found.ip


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    readable = readable_networks([text])
    try:
        found = parse_network(text)
    except InvalidRequest:
        assert readable == []
    else:
        assert readable == [found]


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/-1",
        "10.0.0.0/٣",
        "fe80::1%eth0/64",
        "/8",
        "1/8",
        " 10.0.0.0/8",
    ],
)
def test_what_the_standard_library_would_take_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid CIDR address"):
        parse_network(text)


def test_mapped_prefixes_are_ipv4() -> None:
    assert str(parse_network("::ffff:192.0.1.7/120")) == "192.0.1.0/24"
    assert str(parse_network("::ffff:0:0/90")) == "::ffc0:0:0/90"


@pytest.mark.parametrize(
    ("text", "address"), [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00::1")]
)
def test_a_bare_address_is_read(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize("text", ["", "x", "fe80::1%eth0", "1" * 100])
def test_no_address(text: str) -> None:
    assert parse_address(text) is None


@given(st.lists(st.lists(prefixes, min_size=1, max_size=3), min_size=1, max_size=4), st.booleans())
def test_groups_round_trip(groups: list[list[str]], spaces: bool) -> None:
    comma = " , " if spaces else ","
    text = comma.join(group[0] if len(group) == 1 else f"[{comma.join(group)}]" for group in groups)
    expected: tuple[tuple[Network, ...], ...] = tuple(tuple(parse_network(item) for item in group) for group in groups)
    assert parse_groups(text) == expected


@given(st.text(alphabet="[],1.0/8 a", max_size=20))
def test_any_groups_are_read_or_refused(text: str) -> None:
    try:
        found = parse_groups(text)
    except InvalidRequest:
        found = ()
    assert all(found)
    assert sum(len(group) for group in found) in {0, text.count("/")}


@pytest.mark.parametrize(
    "text",
    [
        "[[10.0.0.0/8]]",
        "10.0.0.0/8]",
        "[10.0.0.0/8",
        "[10.0.0.0/8]]",
        "[10.0.0.0/8][10.0.0.0/8]",
        "10.0.0.0/8,",
        ",10.0.0.0/8",
        "[]",
        "[10.0.0.0/8,]",
        "a",
        "10.0.0.0",
    ],
)
def test_bad_groups_are_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_groups(text)
    assert caught.value.hint
