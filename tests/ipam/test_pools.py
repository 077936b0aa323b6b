# SPDX-License-Identifier: Apache-2.0
"""Pools never give the same thing twice, and take back exactly what they gave.

Does:  drives pools of both families through any sequence of operations.
Place: property tests of `nsm_sdk.ipam.pools`.
State: none.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nsm_sdk.errors import Exhausted, InvalidRequest, NotFound
from nsm_sdk.ipam.addresses import Address, Network, host_network
from nsm_sdk.ipam.pools import DualPool, IpPool

V4 = "10.0.0.240/27"
V6 = "fd00::ffff:fff0/123"


def _addresses(net: Network) -> set[Address]:
    return set(net)


@st.composite
def _subnets(draw: st.DrawFn) -> Network:
    """A prefix that lies inside one of the two pools above."""
    whole: Network = ip_network(draw(st.sampled_from([V4, V6])), strict=False)
    length = draw(st.integers(whole.prefixlen, whole.max_prefixlen))
    subnets: list[Network] = list(whole.subnets(new_prefix=length))
    return draw(st.sampled_from(subnets))


class PoolMachine(RuleBasedStateMachine):
    """A pool beside the sets of free and of given addresses."""

    @initialize(prefix=st.sampled_from([V4, V6]))
    def begin(self, prefix: str) -> None:
        self.pool = IpPool(prefix)
        self.free = _addresses(ip_network(prefix, strict=False))
        self.given: set[Address] = set()

    def _gave(self, *addresses: Address) -> None:
        for address in addresses:
            assert address in self.free
            assert address not in self.given
            self.free.discard(address)
            self.given.add(address)

    def _usable(self, exclude: list[Network]) -> list[Address]:
        return sorted(address for address in self.free if not any(address in net for net in exclude))

    @rule(exclude=st.lists(_subnets(), max_size=3))
    def pull(self, exclude: list[Network]) -> None:
        usable = self._usable(exclude)
        if not usable:
            with pytest.raises(Exhausted):
                self.pool.pull(exclude)
            return
        address = self.pool.pull(exclude)
        assert address == usable[0]
        self._gave(address)

    @rule(exclude=st.lists(_subnets(), max_size=3))
    def pull_pair(self, exclude: list[Network]) -> None:
        usable = self._usable(exclude)
        if len(usable) < 2:
            with pytest.raises(Exhausted):
                self.pool.pull_pair(exclude)
            return
        pair = self.pool.pull_pair(exclude)
        assert list(pair) == usable[:2]
        self._gave(*pair)

    @rule(net=_subnets(), exclude=st.lists(_subnets(), max_size=2))
    def pull_address(self, net: Network, exclude: list[Network]) -> None:
        wanted = net.network_address
        if wanted in self._usable(exclude):
            assert self.pool.pull_address(wanted, exclude) == wanted
            self._gave(wanted)
        else:
            with pytest.raises(NotFound):
                self.pool.pull_address(wanted, exclude)

    @rule(length=st.integers(0, 5), exclude=st.lists(_subnets(), max_size=2))
    def pull_subnet(self, length: int, exclude: list[Network]) -> None:
        usable = set(self._usable(exclude))
        try:
            net = self.pool.pull_subnet((32 if self.pool.version == 4 else 128) - length, exclude)
        except Exhausted:
            whole: Network = ip_network(V4 if self.pool.version == 4 else V6, strict=False)
            assert not any(
                _addresses(part) <= usable for part in whole.subnets(new_prefix=whole.max_prefixlen - length)
            )
            return
        assert _addresses(net) <= usable
        self._gave(*net)

    @rule(net=_subnets())
    def exclude(self, net: Network) -> None:
        self.pool.exclude(net)
        self.free -= _addresses(net)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.given)))
        self.given.discard(address)
        self.free.add(address)
        self.pool.add(address)

    @invariant()
    def what_is_free_is_what_the_model_says(self) -> None:
        covered = [address for net in self.pool.prefixes() for address in net]
        assert covered == sorted(self.free)
        assert self.pool.size == len(self.free)
        assert self.pool.is_empty == (not self.free)


TestPoolMachine = PoolMachine.TestCase


@given(st.lists(_subnets(), max_size=6))
def test_contains_agrees_with_the_prefixes(nets: list[Network]) -> None:
    pool = DualPool(*nets)
    for net in nets:
        assert net in pool
        assert net.network_address in pool
    for net in nets:
        pool.exclude(net)
    assert pool.is_empty


def test_a_large_network_costs_one_range() -> None:
    pool = IpPool("2001:db8::/32")
    first = [pool.pull_pair() for _ in range(100)]
    assert first[0] == (IPv6Address("2001:db8::"), IPv6Address("2001:db8::1"))
    assert first[99] == (IPv6Address("2001:db8::c6"), IPv6Address("2001:db8::c7"))
    assert pool.size == 2**96 - 200
    assert repr(pool).endswith("in 1 ranges)")
    assert sys.getsizeof(pool) < 200


def test_mapped_addresses_are_ipv4() -> None:
    pool = IpPool("192.168.0.0/30")
    assert IPv6Address("::ffff:192.168.0.1") in pool
    assert pool.pull_address(IPv6Address("::ffff:192.168.0.1")) == IPv4Address("192.168.0.1")
    assert IPv4Address("192.168.0.1") not in pool


def test_the_other_family_does_not_fit() -> None:
    pool = IpPool("192.168.0.0/30")
    with pytest.raises(InvalidRequest, match="does not fit in a pool of IPv4"):
        pool.add(IPv6Address("fd00::1"))
    pool.exclude(IPv6Network("::/0"))
    assert pool.size == 4
    with pytest.raises(InvalidRequest):
        IpPool("10.0.0.0/24", "fd00::/64")
    with pytest.raises(InvalidRequest):
        IpPool()
    with pytest.raises(InvalidRequest):
        pool.pull_subnet(33)


def test_a_subnet_is_aligned_and_never_overlaps() -> None:
    pool = IpPool("172.16.0.0/22")
    odd = pool.pull_network(ip_network("172.16.0.0/30"))
    whole = pool.pull_subnet(24)
    assert str(whole) == "172.16.1.0/24"
    assert not whole.overlaps(odd)
    with pytest.raises(NotFound):
        pool.pull_network(ip_network("172.16.0.0/29"))


def test_a_copy_leaves_the_original_alone() -> None:
    pool = IpPool("10.0.0.0/30")
    twin = pool.copy()
    twin.pull_pair()
    assert [str(net) for net in pool.prefixes()] == ["10.0.0.0/30"]
    assert [str(net) for net in twin.prefixes()] == ["10.0.0.2/31"]


def test_a_host_network_is_one_address() -> None:
    assert str(host_network(IPv4Address("10.0.0.1"))) == "10.0.0.1/32"
    assert str(host_network(IPv6Address("fd00::1"))) == "fd00::1/128"
