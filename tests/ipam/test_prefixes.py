# SPDX-License-Identifier: Apache-2.0
"""The prefix pool: leases do not overlap, and everything comes back.

Does:  extracts and releases in any order.
Place: property tests of `nsm_sdk.ipam.prefixes`.
State: none.
"""

from __future__ import annotations

from ipaddress import ip_network
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.errors import AlreadyExists, Exhausted, InvalidRequest
from nsm_sdk.ipam.addresses import Network
from nsm_sdk.ipam.prefixes import ExtraPrefixes, PrefixPool

wishes = st.builds(
    lambda length, required, more: ExtraPrefixes(
        version=4, length=length, required=required, requested=required + more
    ),
    st.integers(26, 32),
    st.integers(0, 3),
    st.integers(1, 3),
)


@given(st.lists(st.lists(wishes, max_size=2), max_size=8), st.randoms(use_true_random=False))
def test_leases_do_not_overlap_and_come_back(requests: list[list[ExtraPrefixes]], order: Random) -> None:
    pool = PrefixPool("10.0.0.0/25")
    held: dict[str, list[Network]] = {}
    for index, extra in enumerate(requests):
        before = pool.prefixes()
        try:
            lease = pool.extract(str(index), 4, extra)
        except Exhausted:
            assert pool.prefixes() == before
            continue
        assert len(lease.extra) >= sum(wish.required for wish in extra)
        assert lease.src.ip + 1 == lease.dst.ip
        held[str(index)] = [lease.src.network, *lease.extra]
    everything = [net for nets in held.values() for net in nets] + pool.prefixes()
    assert not any(left.overlaps(right) for left, right in combinations(everything, 2))
    assert sum(net.num_addresses for net in everything) == 128
    names = list(held)
    order.shuffle(names)
    for name in names:
        pool.release(name)
    assert [str(net) for net in pool.prefixes()] == ["10.0.0.0/25"]


def test_one_lease_for_each_connection() -> None:
    pool = PrefixPool("10.0.0.0/24")
    pool.extract("a", 4)
    with pytest.raises(AlreadyExists):
        pool.extract("a", 4)


@pytest.mark.parametrize(
    ("length", "required", "requested"), [(0, 1, 1), (33, 1, 1), (30, 2, 1), (30, 0, 0), (30, -1, 1)]
)
def test_a_wish_must_make_sense(length: int, required: int, requested: int) -> None:
    wish = ExtraPrefixes(version=4, length=length, required=required, requested=requested)
    with pytest.raises(InvalidRequest):
        PrefixPool("10.0.0.0/24").extract("a", 4, [wish])


def test_excluded_parts_come_back() -> None:
    pool = PrefixPool("10.0.0.0/24", "fd00::/126")
    removed = pool.exclude(["10.0.0.128/25", "fd00::1/128", "192.168.0.0/16"])
    assert removed == [ip_network("10.0.0.128/25"), ip_network("fd00::1/128")]
    assert not pool.intersects("10.0.0.200/32")
    assert pool.intersects("0.0.0.0/0")
    pool.release_excluded(removed)
    assert [str(net) for net in pool.prefixes()] == ["10.0.0.0/24", "fd00::/126"]
