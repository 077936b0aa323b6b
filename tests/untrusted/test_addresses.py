# SPDX-License-Identifier: Apache-2.0
"""Endpoints that hand out addresses, and clients that exclude thousands or bring thousands.

Does:  compares what is excluded with a slow and simple reading of the same texts; counts the steps of an endpoint,
       which must grow as the list does, and not as its square.
Place: `PointToPointIpam`, `SinglePointIpam`.
State: none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection
from nsm_sdk.core import Element
from nsm_sdk.ipam import PointToPointIpam, SinglePointIpam
from nsm_sdk.ipam.addresses import host_network, plain, readable_networks
from nsm_sdk.ipam.pools import Exclusion
from tests.ipam.driver import Hop
from tests.untrusted.strategies import texts

cidrs = st.one_of(
    texts,
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}", fullmatch=True),
    st.tuples(st.ip_addresses(), st.integers(0, 130)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(st.ip_addresses(v=4), st.integers(90, 128)).map(lambda pair: f"::ffff:{pair[0]}/{pair[1]}"),
    st.sampled_from(
        ("010.0.0.1/8", "10.0.0.1/08", "1.2.3/24", "10.0.0.0/\u0663", "::1%lo/128", "1.2.3.4/24/8", " 1.2.3.4/8")
    ),
)


@given(st.lists(cidrs, max_size=8), st.ip_addresses())
def test_what_is_excluded_is_what_the_texts_say(excluded: Sequence[str], address: Any) -> None:
    networks = readable_networks(excluded)
    exclusion = Exclusion(excluded)
    probes = [plain(address), *(net[0] for net in networks), *(net[-1] for net in networks)]
    for probe in probes:
        assert (probe in exclusion) == any(probe in net for net in networks)
        assert probe in exclusion.and_also([probe])
        assert (host_network(probe) in exclusion) == (probe in exclusion)


def steps(run: Callable[[], object]) -> int:
    """How many functions are called; the same every time, unlike seconds."""
    count = 0

    def called(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def asked(size: int) -> Connection:
    """A connection that excludes and brings that many, each its own."""
    conn = Connection(id="c")
    context = conn.context.ip_context
    first = int(ip_address("172.16.0.0"))
    context.excluded_prefixes.extend(f"{ip_address(first + 2 * number)}/32" for number in range(size))
    for number in range(size // 8):
        context.src_ip_addrs.append(f"{ip_address(first + 2 * number)}/32")
        context.dst_ip_addrs.append(f"{ip_address(first + 65536 + number)}/32")
        context.src_routes.add(prefix=f"{ip_address(first + 65536 + number)}/32")
    return conn


@pytest.mark.parametrize("make", [PointToPointIpam, SinglePointIpam])
def test_twice_the_list_costs_twice_the_steps(make: Callable[[str], Element]) -> None:
    def cost(size: int) -> int:
        hop = Hop(make("172.16.0.0/12"))
        conn = asked(size)

        def run() -> None:
            hop.request(conn)
            hop.request(conn)
            hop.close(conn)

        return steps(run)

    cost(16)
    small, large = cost(512), cost(1024)
    assert large < 2.4 * small
