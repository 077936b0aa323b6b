# SPDX-License-Identifier: Apache-2.0
"""What the IPAM elements share: a supply of addresses, and a lease for each connection.

Does:  `Supply` keeps one pool for each prefix, tried in order; a prefix that lies in an earlier one adds nothing, so no
       address is in two pools. Tells which addresses are the element's own business. `Leasing` is the life of a lease:
       lent with the first request, kept by refreshes, moved where it has become excluded, taken back by a close.
Place: below the IPAM elements; one serving role at a time.
State: what is free; the lease of each connection, in a slot. A role that starts serving starts with everything free;
       clients that come back bring what they had.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from nsm_sdk.api import Connection, IPContext, Request
from nsm_sdk.core import Call, Element, Next, Service, Slot
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.ipam.addresses import Address, Network, parse_network
from nsm_sdk.ipam.pools import Exclusion, IpPool

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


@dataclass(slots=True, eq=False, kw_only=True)
class Lease:
    """What one connection has of a supply."""

    own: list[Taken]
    """Given out for it."""
    guests: list[Taken] = field(default_factory=list)
    """Free addresses of ours that the client brought; kept for it."""
    former: list[Taken] = field(default_factory=list)
    """In use below until the next request has succeeded."""
    settled: bytes = b""
    """The context as it was left by the last request."""


L = TypeVar("L", bound=Lease)
S = TypeVar("S", bound=Supply)


class Leasing(Element, Generic[L, S]):
    """An element that gives each connection addresses of a supply."""

    def __init__(self, supply: S, name: str) -> None:
        self._supply = supply
        self.prefixes = tuple(map(str, supply.prefixes))
        self._lease = Slot[L](name)

    @abstractmethod
    def lend(self, context: IPContext, excluded: Exclusion) -> L:
        """A lease for a connection that is new here. Exhausted where there is none."""

    @abstractmethod
    def move(self, lease: L, excluded: Exclusion) -> None:
        """Other addresses, for some have become excluded. Exhausted leaves all as it was."""

    @abstractmethod
    def write(self, context: IPContext, lease: L, excluded: Exclusion) -> None:
        """Puts the lease into the context."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        context = request.connection.context.ip_context
        lease = self._lease.get(call)
        if lease is not None and not self._supply.holds(lease.own[0][0]):
            lease = None
        if lease is not None and not lease.former and context.SerializeToString(deterministic=True) == lease.settled:
            return await next.request(call, request)  # a refresh that brings what it was given
        excluded = Exclusion(context.excluded_prefixes)
        if lease is None:
            lease = self._lease.set(call, self.lend(context, excluded))
        elif any(address in excluded for _, address in lease.own):
            self.move(lease, excluded)
        self.write(context, lease, excluded)
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
                give_back([*lease.former, *lease.own, *lease.guests])


def give_back(addresses: Iterable[Taken]) -> None:
    """Make addresses free."""
    for pool, address in addresses:
        pool.add(address)


def take_back(addresses: Iterable[Taken]) -> None:
    """Make addresses taken that were given back a moment ago."""
    for pool, address in addresses:
        pool.exclude(address)
