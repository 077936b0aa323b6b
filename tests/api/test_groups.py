# SPDX-License-Identifier: Apache-2.0
"""Groups of prefixes and of service URLs."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import ServiceUrl, prefix, prefix_groups, url_groups
from nsm_sdk.errors import InvalidRequest
from tests.api.tables import REFUSED, answer

NETWORKS = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)) | st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
GROUPS = st.lists(st.lists(NETWORKS.map(lambda pair: f"{pair[0]}/{pair[1]}"), min_size=1, max_size=3), max_size=3)


@given(GROUPS)
def test_prefix_groups_round_trip(groups: list[list[str]]) -> None:
    wanted = [[ipaddress.ip_network(item, strict=False) for item in group] for group in groups]
    assert prefix_groups(" , ".join(f"[ {', '.join(group)} ]" for group in groups)) == wanted


def test_a_prefix_outside_brackets_is_a_group_by_itself() -> None:
    groups = prefix_groups("10.0.0.0/8,[172.16.0.0/16,fd00::/64],192.168.1.7/24")
    assert [[str(item) for item in group] for group in groups] == [
        ["10.0.0.0/8"],
        ["172.16.0.0/16", "fd00::/64"],
        ["192.168.1.0/24"],
    ]


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "fd00::/129", "fe80::%eth0/64", "a/8", "10.0.0.0/-1"]
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a prefix") as caught:
        prefix(text)
    assert caught.value.hint


def test_url_groups() -> None:
    a, b, c = (ServiceUrl.parse(f"kernel://{name}") for name in "abc")
    assert url_groups("") == []
    assert url_groups("kernel://a, kernel://b") == [[a, b]]
    assert url_groups("[kernel://a,kernel://b],[kernel://c]") == [[a, b], [c]]


def test_a_host_in_brackets_does_not_end_a_group() -> None:
    assert url_groups("[kernel://[::1]/nsm,kernel://svc@[::2]]") == [
        [ServiceUrl.parse("kernel://[::1]/nsm"), ServiceUrl.parse("kernel://svc@[::2]")]
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        ",",
        "[kernel://a",
        "kernel://a]",
        "[kernel://a]]",
        "[kernel://a],",
        "[[kernel://a]]",
        "[kernel://a][kernel://b]",
        "[kernel://a,,kernel://b]",
        "[kernel://a],kernel://b",
        "kernel://a,[kernel://b]",
        "x",
    ],
)
def test_groups_out_of_order_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        url_groups(text)
    assert caught.value.hint


@given(st.text("[],/:a 1", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for groups in (answer(lambda: prefix_groups(text)), answer(lambda: url_groups(text))):
        assert groups == REFUSED or (isinstance(groups, list) and all(groups))
