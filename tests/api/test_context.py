# SPDX-License-Identifier: Apache-2.0
"""Checks of the IP context, names across domains, and labels from the environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import (
    ExtraPrefixRequest,
    IpFamily,
    Route,
    check_extra_prefix_request,
    is_interdomain,
    join_domain,
    policy_route,
    policy_source,
    port_range,
    split_domain,
    with_client_info,
)
from nsm_sdk.errors import InvalidRequest


def asked(required: int, requested: int, length: int, family: int | None = 0) -> ExtraPrefixRequest:
    """A request for extra prefixes."""
    found = ExtraPrefixRequest(required_number=required, requested_number=requested, prefix_len=length)
    if family is not None:
        found.addr_family.CopyFrom(IpFamily(family=family))
    return found


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (None, "missing"),
        (asked(1, 1, 24, None), "family"),
        (asked(1, 1, 33), "prefix length 33"),
        (asked(1, 1, 129, IpFamily.IPV6), "prefix length 129"),
        (asked(1, 1, 0), "prefix length 0"),
        (asked(0, 1, 24), "0 at least"),
        (asked(2, 1, 24), "2 at least"),
    ],
)
def test_extra_prefix_requests_that_cannot_be_answered(request_: ExtraPrefixRequest | None, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        check_extra_prefix_request(request_)
    assert caught.value.hint


def test_extra_prefix_requests_in_order() -> None:
    for request in (asked(1, 1, 24), asked(1, 5, 32), asked(2, 2, 128, IpFamily.IPV6)):
        before = request.SerializeToString()
        check_extra_prefix_request(request)
        assert request.SerializeToString() == before


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_port_ranges(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert port_range(f"{low}-{high}") == (low, high)
    assert port_range(str(low)) == (low, low)
    assert port_range("") is None


@pytest.mark.parametrize("text", ["-", "80-", "-80", "a", "1-2-3", "65536", "90-80", " 80", "+80", "٣", "9" * 9999])
def test_what_is_no_port_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="range of ports"):
        port_range(text)


def test_a_policy_route_and_its_source() -> None:
    policy = policy_route(source="10.0.0.0/8", proto="6", dst_port="80", routes=[Route(prefix="0.0.0.0/0")])
    assert policy_source(policy) == "10.0.0.0/8"
    assert policy_source(policy_route()) == ""
    assert type(policy).FromString(policy.SerializeToString()) == policy


@given(st.text(), st.text())
def test_names_across_domains(target: str, domain: str) -> None:
    name = join_domain(target, domain)
    assert is_interdomain(name)
    assert split_domain(name) == (target, domain) or "@" in target
    assert split_domain(target.replace("@", "")) == (target.replace("@", ""), "")


def test_labels_from_the_environment() -> None:
    environment = {"NODE_NAME": "n", "POD_NAME": "", "OTHER": "x"}
    assert with_client_info({"nodeName": "mine", "a": "b"}, environment) == {
        "nodeName": "mine",
        "podName": "",
        "a": "b",
    }
