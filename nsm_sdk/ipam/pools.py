# SPDX-License-Identifier: Apache-2.0
"""Pools of addresses.

Does:  `IpPool` gives out addresses, pairs and subnets of one family, always the lowest that fits, and takes them
       back; `DualPool` holds one pool of each family and sends every question to the right one.
Place: pure; the elements and the prefix service of this room stand on it.
State: the free addresses, as ranges: a fresh /64 costs as much as a fresh /30.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, Self

from nsm_sdk.errors import Exhausted, InvalidRequest, NotFound
from nsm_sdk.ipam.addresses import Address, Network, bounds, parse_network, plain
from nsm_sdk.ipam.exclusion import Exclusion
from nsm_sdk.ipam.ranges import Ranges

Version = Literal[4, 6]

# upstream peers look at this text
EMPTY = "IPPool is empty"
EMPTY_HINT = "give the endpoint a larger or a further prefix, or exclude fewer"


class IpPool:
    """The free addresses of one family. What is pulled is gone until it is added again."""

    __slots__ = ("_bits", "_free", "version")

    def __init__(self, *prefixes: str | Network, version: Version | None = None) -> None:
        """A pool of `prefixes`, all of one family; `version` is needed only where there is none.

        InvalidRequest where a prefix cannot be read, or is of another family.
        """
        nets = [parse_network(prefix) if isinstance(prefix, str) else prefix for prefix in prefixes]
        if version is None:
            if not nets:
                raise InvalidRequest("a pool needs a prefix or a version", hint="say version=4 or version=6")
            version = nets[0].version
        self.version: Version = version
        self._bits = 32 if version == 4 else 128
        self._free = Ranges()
        for net in nets:
            self.add(net)

    def add(self, item: Address | Network) -> None:
        """Put an address or a prefix in; what is in already stays. InvalidRequest where it is of the other family."""
        if item.version != self.version:
            raise InvalidRequest(f"{item} does not fit in a pool of IPv{self.version}")
        self._free.add(*bounds(item))

    def exclude(self, item: Address | Network) -> None:
        """Take an address or a prefix out, as far as it is in."""
        if item.version == self.version:
            self._free.remove(*bounds(item))

    def __contains__(self, item: Address | Network) -> bool:
        """True where the address, or every address of the prefix, is free."""
        if isinstance(item, IPv4Address | IPv6Address):
            item = plain(item)
        return item.version == self.version and self._free.contains(*bounds(item))

    def pull(self, exclude: Iterable[Network] | Exclusion = ()) -> Address:
        """The lowest free address outside `exclude`. Exhausted where there is none."""
        return self._take(self._lowest(0, self._ranges(exclude)))

    def pull_address(self, address: Address, exclude: Iterable[Network] = ()) -> Address:
        """This very address. NotFound where it is not free or is excluded."""
        address = plain(address)
        if address not in self or any(address in net for net in exclude):
            raise NotFound(
                "IPPool doesn't contain required IP", hint=f"{address} is taken, excluded or not of this pool"
            )
        return self._take(int(address))

    def pull_pair(self, exclude: Iterable[Network] | Exclusion = ()) -> tuple[Address, Address]:
        """The two lowest free addresses outside `exclude`; all or nothing. Exhausted where there are not two."""
        avoid = self._ranges(exclude)
        first = self._lowest(0, avoid)
        second = self._lowest(first + 1, avoid)
        return self._take(first), self._take(second)

    def pull_subnet(self, length: int, exclude: Iterable[Network] | Exclusion = ()) -> Network:
        """The lowest free prefix of `length` bits that touches nothing of `exclude`. Exhausted where there is none."""
        if not 0 <= length <= self._bits:
            raise InvalidRequest(f"/{length} is no length of a prefix of IPv{self.version}")
        first = self._free.lowest_block(1 << (self._bits - length), 0, self._ranges(exclude))
        if first is None:
            raise Exhausted(EMPTY, hint=EMPTY_HINT)
        return self.pull_network(self._network(first, length))

    def pull_network(self, network: Network) -> Network:
        """This very prefix. NotFound where any address of it is not free."""
        if network not in self:
            raise NotFound("IPPool doesn't contain required prefix", hint=f"{network} is taken or not of this pool")
        self.exclude(network)
        return network

    def prefixes(self) -> Iterator[Network]:
        """The free addresses as the fewest prefixes, ascending."""
        for first, last in self._free:
            while first <= last:
                room = (last - first + 1).bit_length() - 1
                align = (first & -first).bit_length() - 1 if first else self._bits
                host_bits = min(room, align)
                yield self._network(first, self._bits - host_bits)
                first += 1 << host_bits

    @property
    def is_empty(self) -> bool:
        """True where nothing is free."""
        return len(self._free) == 0

    @property
    def size(self) -> int:
        """How many addresses are free."""
        return self._free.total()

    def copy(self) -> Self:
        """An independent copy."""
        twin = type(self)(version=self.version)
        twin._free = self._free.copy()
        return twin

    def __repr__(self) -> str:
        return f"IpPool({self.size} free of IPv{self.version} in {len(self._free)} ranges)"

    def _ranges(self, items: Iterable[Network] | Exclusion) -> Ranges:
        if isinstance(items, Exclusion):
            return items.of(self.version)
        return Ranges(bounds(item) for item in items if item.version == self.version)

    def _lowest(self, start: int, avoid: Ranges) -> int:
        found = self._free.lowest(start, avoid)
        if found is None:
            raise Exhausted(EMPTY, hint=EMPTY_HINT)
        return found

    def _take(self, number: int) -> Address:
        self._free.remove(number, number)
        return IPv4Address(number) if self.version == 4 else IPv6Address(number)

    def _network(self, first: int, length: int) -> Network:
        return IPv4Network((first, length)) if self.version == 4 else IPv6Network((first, length))


class DualPool:
    """A pool of IPv4 and one of IPv6; every item goes to the one of its family."""

    __slots__ = ("v4", "v6")

    def __init__(self, *prefixes: str | Network) -> None:
        """A pool of `prefixes` of any family. InvalidRequest where one cannot be read."""
        self.v4 = IpPool(version=4)
        self.v6 = IpPool(version=6)
        for prefix in prefixes:
            self.add(parse_network(prefix) if isinstance(prefix, str) else prefix)

    def of(self, version: int) -> IpPool:
        """The pool of that family."""
        return self.v4 if version == 4 else self.v6

    def add(self, item: Address | Network) -> None:
        """Put an address or a prefix in."""
        self.of(item.version).add(item)

    def exclude(self, item: Address | Network) -> None:
        """Take an address or a prefix out."""
        self.of(item.version).exclude(item)

    def __contains__(self, item: Address | Network) -> bool:
        return item in self.v4 or item in self.v6

    def prefixes(self) -> Iterator[Network]:
        """The free addresses as the fewest prefixes, IPv4 first."""
        yield from self.v4.prefixes()
        yield from self.v6.prefixes()

    @property
    def is_empty(self) -> bool:
        """True where nothing is free."""
        return self.v4.is_empty and self.v6.is_empty

    def __repr__(self) -> str:
        return f"DualPool({self.v4!r}, {self.v6!r})"
