# SPDX-License-Identifier: Apache-2.0
"""Element that gives each connection a pair of addresses.

Does:  the endpoint gets the lowest free address of a prefix, the client the next, both as host prefixes with a route
       to the other. A refresh keeps them; a prefix that has become excluded moves them. A connection that is new here
       gets back the addresses which it brings, if they are free. An address of ours that belongs to somebody else is
       taken out of the request; one that nobody has stays with the connection that brings it.
Place: in an endpoint's chain, above the mechanisms; one for each address family (see `ipam_chain`).
State: that of `Leasing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from nsm_sdk.api import IPContext
from nsm_sdk.errors import Exhausted
from nsm_sdk.ipam.addresses import (
    Address,
    Interface,
    Network,
    Side,
    has_only,
    host_text,
    keep_addresses,
    parse_address,
    put_address,
    put_route,
)
from nsm_sdk.ipam.leasing import Lease, Leasing, Supply, give_back, take_back
from nsm_sdk.ipam.pools import Exclusion

# a peer must not empty a pool with one long list
_MOST_GUESTS = 16


class PointToPointIpam(Leasing[Lease, Supply]):
    """Addresses for both ends. Exhausted where no prefix has two left."""

    def __init__(self, *prefixes: str | Network) -> None:
        """`prefixes` are tried in order. InvalidRequest where there is none, or one cannot be read."""
        super().__init__(Supply(prefixes), "point to point addresses")

    def lend(self, context: IPContext, excluded: Exclusion) -> Lease:
        brought_src = _addresses(context.src_ip_addrs, excluded)
        brought_dst = _addresses(context.dst_ip_addrs, excluded)
        for pool in self._supply.pools:
            src = next((address for address in brought_src if address in pool), None)
            dst = next((address for address in brought_dst if address in pool and address != src), None)
            if src is not None and dst is not None:
                return Lease(own=[(pool, pool.pull_address(src)), (pool, pool.pull_address(dst))])
        try:
            return self._pull(excluded.and_also((*brought_src, *brought_dst)))
        except Exhausted:
            return self._pull(excluded)

    def _pull(self, excluded: Exclusion) -> Lease:
        for pool in self._supply.pools[:-1]:
            try:
                dst, src = pool.pull_pair(excluded)
            except Exhausted:
                continue
            return Lease(own=[(pool, src), (pool, dst)])
        last = self._supply.pools[-1]
        dst, src = last.pull_pair(excluded)
        return Lease(own=[(last, src), (last, dst)])

    def move(self, lease: Lease, excluded: Exclusion) -> None:
        # the other pair may share an address with this one
        give_back(lease.own)
        try:
            found = self._pull(excluded)
        except Exhausted:
            take_back(lease.own)
            raise
        former = [taken for taken in lease.own if taken[1] not in [address for _, address in found.own]]
        take_back(former)
        lease.own = found.own
        lease.former = [*lease.former, *former]

    def write(self, context: IPContext, lease: Lease, excluded: Exclusion) -> None:
        # what else is there of our addresses stays only where nobody has it
        def stays(found: Interface, own: Address) -> bool:
            address = found.ip
            if address == own:
                return True
            pool = self._supply.pool_of(address)
            if pool is None or (pool, address) in lease.guests:
                return True
            if address not in pool or len(lease.guests) >= _MOST_GUESTS or address in excluded:
                return False
            lease.guests.append((pool, pool.pull_address(address)))
            return True

        (_, src), (_, dst) = lease.own
        sides: tuple[tuple[Side, Address], ...] = (("src", src), ("dst", dst))
        for side, own in sides:
            text = host_text(own)
            if not has_only(context, side, text):
                keep_addresses(context, side, partial(stays, own=own))
            put_address(context, side, text)
            put_route(context, side, text)


def _addresses(texts: Iterable[str], excluded: Exclusion) -> list[Address]:
    """Those that can be read and are not excluded."""
    found = (parse_address(text) for text in texts)
    return [address for address in found if address is not None and address not in excluded]
