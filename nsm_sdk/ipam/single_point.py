# SPDX-License-Identifier: Apache-2.0
"""Element that gives the client of each connection one address, with the mask of its prefix.

Does:  hands out the lowest free address of a prefix, from the second on: the first is the endpoint's, and the
       broadcast address is nobody's. Where the endpoint's own address is excluded, it moves on to the next. A refresh
       keeps the address; a connection that is new here gets back the one it brings, if it is free.
Place: in the chain of an endpoint whose clients share one network (a VLAN); no address and no route for the other end.
State: the address, in a slot; what is free, in a `Supply`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nsm_sdk.api import Connection, IPContext, Request
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import Exhausted
from nsm_sdk.ipam.addresses import Address, Interface, Network
from nsm_sdk.ipam.context import keep_addresses, put_address, readable_interface
from nsm_sdk.ipam.exclusion import Exclusion
from nsm_sdk.ipam.pools import EMPTY, EMPTY_HINT, IpPool
from nsm_sdk.ipam.supply import Supply, Taken, give_back


class _Subnets(Supply):
    """Pools without the addresses that no client may have."""

    own: list[Address | None]
    """The endpoint's address in each prefix; None where not even that is left."""

    def reset(self) -> None:
        super().reset()
        self.own = [None] * len(self.pools)
        for index, (prefix, pool) in enumerate(zip(self.prefixes, self.pools, strict=True)):
            if prefix.version == 4:
                pool.exclude(prefix.broadcast_address)
            if not pool.is_empty:
                self.own[index] = pool.pull()

    def pull(self, excluded: Exclusion) -> tuple[Network, Taken]:
        """The lowest address for a client, of the first prefix that has one."""
        for index, (prefix, pool) in enumerate(zip(self.prefixes, self.pools, strict=True)):
            try:
                self._move_own(index, pool, prefix, excluded)
                return prefix, (pool, pool.pull(excluded))
            except Exhausted:
                continue
        raise Exhausted(EMPTY, hint=EMPTY_HINT)

    def _move_own(self, index: int, pool: IpPool, prefix: Network, excluded: Exclusion) -> None:
        own = self.own[index]
        if own is None or own not in excluded:
            return
        self.own[index] = pool.pull(excluded)
        # the network's own address is no good for a client
        if own != prefix.network_address:
            pool.add(own)


@dataclass(slots=True, eq=False)
class _Lease:
    prefix: Network
    taken: Taken
    former: list[Taken] = field(default_factory=list)
    """In use below until the next request has succeeded."""

    def text(self) -> str:
        return f"{self.taken[1]}/{self.prefix.prefixlen}"


class SinglePointIpam(Element):
    """An address for the client only. Exhausted where no prefix has one left."""

    def __init__(self, *prefixes: str | Network) -> None:
        """`prefixes` are tried in order. InvalidRequest where there is none, or one cannot be read."""
        self._supply = _Subnets(prefixes)
        self.prefixes = tuple(map(str, self._supply.prefixes))
        self._lease = Slot[_Lease]("single point address")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        context = request.connection.context.ip_context
        excluded = Exclusion(context.excluded_prefixes)
        lease = self._lease.get(call)
        if lease is None or not self._supply.holds(lease.taken[0]):
            lease = self._lease.set(call, self._brought(context, excluded) or _Lease(*self._supply.pull(excluded)))
        elif lease.taken[1] in excluded:
            self._move(lease, excluded)
        own = lease.text()
        keep_addresses(context, "src", lambda found: str(found) == own or self._origin(found) is None)
        put_address(context, "src", own)
        conn = await next.request(call, request)
        give_back(lease.former)
        lease.former = []
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        try:
            await next.close(call, conn)
        finally:
            lease = self._lease.pop(call)
            if lease is not None:
                give_back([*lease.former, lease.taken])

    def _origin(self, found: Interface) -> IpPool | None:
        """The pool that gave the address; one with another mask is none of ours."""
        return self._supply.pool_of(found.ip) if found.network in self._supply.prefixes else None

    def _brought(self, context: IPContext, excluded: Exclusion) -> _Lease | None:
        for text in context.src_ip_addrs:
            found = readable_interface(text)
            pool = self._origin(found) if found is not None else None
            if found is not None and pool is not None and found.ip in pool and found.ip not in excluded:
                return _Lease(found.network, (pool, pool.pull_address(found.ip)))
        return None

    def _move(self, lease: _Lease, excluded: Exclusion) -> None:
        """Another address; Exhausted leaves all as it was."""
        prefix, taken = self._supply.pull(excluded)
        lease.former.append(lease.taken)
        lease.prefix, lease.taken = prefix, taken
