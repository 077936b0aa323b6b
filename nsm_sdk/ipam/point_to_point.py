# SPDX-License-Identifier: Apache-2.0
"""Element that gives each connection a pair of addresses.

Does:  the endpoint gets the lowest free address of a prefix, the client the next, both as host prefixes with a route
       to the other. A refresh keeps them; a prefix that has become excluded moves them. A connection that is new here
       gets back the addresses which it brings, if they are free. An address of ours that belongs to somebody else is
       taken out of the request; one that nobody has stays with the connection that brings it.
Place: in an endpoint's chain, above the mechanisms; one for each address family (see `ipam_chain`).
State: the pair, in a slot; what is free, in a `Supply`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from nsm_sdk.api import Connection, IPContext, Request
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import Exhausted
from nsm_sdk.ipam.addresses import (
    Address,
    Interface,
    Network,
    host_text,
    parse_address,
)
from nsm_sdk.ipam.context import Side, has_only, keep_addresses, put_address, put_route
from nsm_sdk.ipam.exclusion import Exclusion
from nsm_sdk.ipam.pools import IpPool
from nsm_sdk.ipam.supply import Supply, Taken, give_back, take_back

# a peer must not empty a pool with one long list
_MOST_GUESTS = 16


@dataclass(slots=True, eq=False)
class _Lease:
    pool: IpPool
    src: Address
    dst: Address
    guests: list[Taken] = field(default_factory=list)
    """Free addresses of ours that the client brought; kept for it."""
    former: list[Taken] = field(default_factory=list)
    """In use below until the next request has succeeded."""
    settled: bytes = b""
    """The context as it was left by the last request."""

    def sides(self) -> tuple[tuple[Side, Address], tuple[Side, Address]]:
        return ("src", self.src), ("dst", self.dst)


class PointToPointIpam(Element):
    """Addresses for both ends. Exhausted where no prefix has two left."""

    def __init__(self, *prefixes: str | Network) -> None:
        """`prefixes` are tried in order. InvalidRequest where there is none, or one cannot be read."""
        self._supply = Supply(prefixes)
        self.prefixes = tuple(map(str, self._supply.prefixes))
        self._lease = Slot[_Lease]("point to point addresses")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        context = request.connection.context.ip_context
        lease = self._lease.get(call)
        if (
            lease is not None
            and not lease.former
            and context.SerializeToString(deterministic=True) == lease.settled
            and self._supply.holds(lease.pool)
        ):
            return await next.request(call, request)  # a refresh that brings what it was given
        excluded = Exclusion(context.excluded_prefixes)
        if lease is None or not self._supply.holds(lease.pool):
            lease = self._lease.set(call, self._first(context, excluded))
        elif lease.src in excluded or lease.dst in excluded:
            self._move(lease, excluded)
        self._settle(context, lease, excluded)
        lease.settled = context.SerializeToString(deterministic=True)
        conn = await next.request(call, request)
        give_back(lease.former)
        lease.former = []
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        try:
            await next.close(call, conn)
        finally:
            # the data path below has let go of them by now
            lease = self._lease.pop(call)
            if lease is not None:
                give_back([*lease.former, (lease.pool, lease.src), (lease.pool, lease.dst), *lease.guests])

    def _first(self, context: IPContext, excluded: Exclusion) -> _Lease:
        brought_src = _addresses(context.src_ip_addrs, excluded)
        brought_dst = _addresses(context.dst_ip_addrs, excluded)
        for pool in self._supply.pools:
            src = next((address for address in brought_src if address in pool), None)
            dst = next((address for address in brought_dst if address in pool and address != src), None)
            if src is not None and dst is not None:
                return _Lease(pool, pool.pull_address(src), pool.pull_address(dst))
        try:
            return self._pull(excluded.and_also((*brought_src, *brought_dst)))
        except Exhausted:
            return self._pull(excluded)

    def _pull(self, excluded: Exclusion) -> _Lease:
        for pool in self._supply.pools[:-1]:
            try:
                dst, src = pool.pull_pair(excluded)
            except Exhausted:
                continue
            return _Lease(pool, src, dst)
        last = self._supply.pools[-1]
        dst, src = last.pull_pair(excluded)
        return _Lease(last, src, dst)

    def _move(self, lease: _Lease, excluded: Exclusion) -> None:
        """Another pair, which may share an address with the old one; Exhausted leaves all as it was."""
        old = [(lease.pool, lease.dst), (lease.pool, lease.src)]
        give_back(old)
        try:
            found = self._pull(excluded)
        except Exhausted:
            take_back(old)
            raise
        former = [(pool, address) for pool, address in old if address not in (found.src, found.dst)]
        take_back(former)
        lease.pool, lease.src, lease.dst = found.pool, found.src, found.dst
        lease.former = [*lease.former, *former]

    def _settle(self, context: IPContext, lease: _Lease, excluded: Exclusion) -> None:
        """Write the pair into the context; what else is there of our addresses stays only where nobody has it."""

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

        for side, own in lease.sides():
            text = host_text(own)
            if not has_only(context, side, text):
                keep_addresses(context, side, partial(stays, own=own))
            put_address(context, side, text)
            put_route(context, side, text)


def _addresses(texts: Iterable[str], excluded: Exclusion) -> list[Address]:
    """Those that can be read and are not excluded."""
    found = (parse_address(text) for text in texts)
    return [address for address in found if address is not None and address not in excluded]
