# SPDX-License-Identifier: Apache-2.0
"""The addresses that an IPAM element gives out.

Does:  keeps one pool for each prefix, tried in order; a prefix that lies in an earlier one adds nothing, so no address
       is in two pools. Tells which addresses are the element's own business.
Place: held by an IPAM element; one serving role at a time.
State: what is free. A role that starts serving starts with everything free; clients that come back bring what they had.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from nsm_sdk.core import Service
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.ipam.addresses import Address, Network, parse_network
from nsm_sdk.ipam.pools import IpPool

if TYPE_CHECKING:
    from nsm_sdk.core import Runtime


Taken: TypeAlias = tuple[IpPool, Address]
"""An address and the pool it came from."""


class Supply(Service):
    """Pools of one element."""

    def __init__(self, prefixes: tuple[str | Network, ...]) -> None:
        """InvalidRequest where there is no prefix, or one cannot be read."""
        if not prefixes:
            raise InvalidRequest("required one or more prefixes", hint="give the IPAM element a prefix to hand out")
        self.prefixes = tuple(parse_network(prefix) if isinstance(prefix, str) else prefix for prefix in prefixes)
        self.pools: tuple[IpPool, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Everything is free again."""
        self.pools = tuple(IpPool(prefix) for prefix in self.prefixes)
        for index, pool in enumerate(self.pools):
            for earlier in self.prefixes[:index]:
                pool.exclude(earlier)

    async def start(self, runtime: Runtime) -> None:
        self.reset()

    def holds(self, pool: IpPool) -> bool:
        """True for a pool of ours; one from before a restart is not."""
        return any(pool is own for own in self.pools)

    def pool_of(self, address: Address) -> IpPool | None:
        """The pool that `address` belongs to, free or not; None where it is not ours."""
        for prefix, pool in zip(self.prefixes, self.pools, strict=True):
            if address in prefix:
                return pool
        return None


def give_back(addresses: Iterable[Taken]) -> None:
    """Make addresses free."""
    for pool, address in addresses:
        pool.add(address)


def take_back(addresses: Iterable[Taken]) -> None:
    """Make addresses taken that were given back a moment ago."""
    for pool, address in addresses:
        pool.exclude(address)
