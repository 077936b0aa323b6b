# SPDX-License-Identifier: Apache-2.0
"""Element that gives the client of each connection one address, with the mask of its prefix.

Does:  hands out the lowest free address of a prefix, from the second on: the first is the endpoint's, and the
       broadcast address is nobody's. Where the endpoint's own address is excluded, it moves on to the next. A refresh
       keeps the address; a connection that is new here gets back the one it brings, if it is free.
Place: in the chain of an endpoint whose clients share one network (a VLAN); no address and no route for the other end.
State: that of `Leasing`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nsm_sdk.api import IPContext
from nsm_sdk.errors import Exhausted
from nsm_sdk.ipam.addresses import Address, Interface, Network, keep_addresses, put_address, readable_interface
from nsm_sdk.ipam.leasing import Lease, Leasing, Supply, Taken
from nsm_sdk.ipam.pools import EMPTY, EMPTY_HINT, Exclusion, IpPool


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


@dataclass(slots=True, eq=False, kw_only=True)
class _Lease(Lease):
    prefix: Network

    def text(self) -> str:
        [(_, address)] = self.own
        return f"{address}/{self.prefix.prefixlen}"


class SinglePointIpam(Leasing[_Lease, _Subnets]):
    """An address for the client only. Exhausted where no prefix has one left."""

    def __init__(self, *prefixes: str | Network) -> None:
        """`prefixes` are tried in order. InvalidRequest where there is none, or one cannot be read."""
        super().__init__(_Subnets(prefixes), "single point address")

    def lend(self, context: IPContext, excluded: Exclusion) -> _Lease:
        for text in context.src_ip_addrs:
            found = readable_interface(text)
            pool = self._origin(found) if found is not None else None
            if found is not None and pool is not None and found.ip in pool and found.ip not in excluded:
                return _Lease(prefix=found.network, own=[(pool, pool.pull_address(found.ip))])
        prefix, taken = self._supply.pull(excluded)
        return _Lease(prefix=prefix, own=[taken])

    def move(self, lease: _Lease, excluded: Exclusion) -> None:
        prefix, taken = self._supply.pull(excluded)
        lease.former += lease.own
        lease.prefix, lease.own = prefix, [taken]

    def write(self, context: IPContext, lease: _Lease, excluded: Exclusion) -> None:
        own = lease.text()
        keep_addresses(context, "src", lambda found: str(found) == own or self._origin(found) is None)
        put_address(context, "src", own)

    def _origin(self, found: Interface) -> IpPool | None:
        """The pool that gave the address; one with another mask is none of ours."""
        return self._supply.pool_of(found.ip) if found.network in self._supply.prefixes else None
