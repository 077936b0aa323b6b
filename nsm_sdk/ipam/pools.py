# SPDX-License-Identifier: Apache-2.0
"""Pools of addresses.

Does:  `IpPool` gives out addresses, pairs and subnets of one family, always the lowest that fits, and takes them
       back; `DualPool` holds one pool of each family and sends every question to the right one. `Exclusion` is what a
       request excludes. All are `Ranges` of numbers.
Place: pure; the elements and the prefix service of this room stand on it.
State: the free addresses, as ranges: a fresh /64 costs as much as a fresh /30. A cache of excluded texts read before;
       they come again with every refresh.
"""

from __future__ import annotations

import functools
import socket
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, Self

from nsm_sdk.errors import Exhausted, InvalidRequest, NotFound
from nsm_sdk.ipam.addresses import LONGEST, Address, Network, bounds, parse_network, plain

Version = Literal[4, 6]

# upstream peers look at this text
EMPTY = "IPPool is empty"
EMPTY_HINT = "give the endpoint a larger or a further prefix, or exclude fewer"
_MAPPED = bytes(10) + b"\xff\xff"


class Ranges:
    """Disjoint, sorted, merged ranges of whole numbers; both ends of a range belong to it.

    Numbers of any size: a whole IPv6 network is one entry. Finding costs the logarithm of the number of ranges.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        # A long list from a peer costs no moving about: sorted, every one lands at the end.
        firsts, lasts = self._firsts, self._lasts
        for first, last in sorted(ranges):
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)

    def add(self, first: int, last: int) -> None:
        """Add all numbers from `first` to `last`; those that are in already stay in."""
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = (first,)
        self._lasts[low:high] = (last,)

    def remove(self, first: int, last: int) -> None:
        """Take out all numbers from `first` to `last`, as far as they are in."""
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        if low >= high:
            return
        kept: list[tuple[int, int]] = []
        if self._firsts[low] < first:
            kept.append((self._firsts[low], first - 1))
        if self._lasts[high - 1] > last:
            kept.append((last + 1, self._lasts[high - 1]))
        self._firsts[low:high] = [start for start, _ in kept]
        self._lasts[low:high] = [end for _, end in kept]

    def contains(self, first: int, last: int) -> bool:
        """True where every number from `first` to `last` is in."""
        index = bisect_right(self._firsts, first) - 1
        return index >= 0 and self._lasts[index] >= last

    def meeting(self, first: int, last: int) -> tuple[int, int] | None:
        """The lowest range that shares a number with `first` to `last`, whole, or None."""
        index = bisect_left(self._lasts, first)
        if index == len(self._lasts) or self._firsts[index] > last:
            return None
        return self._firsts[index], self._lasts[index]

    def lowest(self, start: int = 0, avoid: Ranges | None = None) -> int | None:
        """The lowest number that is in, not below `start` and not in `avoid`; None where there is none."""
        return self.lowest_block(1, start, avoid)

    def lowest_block(self, size: int, start: int = 0, avoid: Ranges | None = None) -> int | None:
        """The first of the lowest `size` numbers in a row that begin at a multiple of `size`, as `lowest`."""
        position = -(-start // size) * size
        while True:
            index = bisect_left(self._lasts, position)
            if index == len(self._lasts):
                return None
            position = max(position, -(-self._firsts[index] // size) * size)
            if self._lasts[index] < position + size - 1:
                position = max(position, self._lasts[index] + 1)
                position = -(-position // size) * size
                continue
            hindrance = avoid.meeting(position, position + size - 1) if avoid is not None else None
            if hindrance is None:
                return position
            position = -(-(hindrance[1] + 1) // size) * size

    def total(self) -> int:
        """How many numbers are in."""
        return sum(last - first + 1 for first, last in self)

    def copy(self) -> Ranges:
        """An independent copy."""
        twin = Ranges()
        twin._firsts = self._firsts.copy()
        twin._lasts = self._lasts.copy()
        return twin

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        return len(self._firsts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]  # a changing set is no key

    def __repr__(self) -> str:
        return f"Ranges({list(self)!r})"


class Exclusion:
    """Addresses of both families that must not be given out, read once.

    A peer may send thousands of prefixes, and an address must not be compared with each: they are read straight to
    ranges. What cannot be read is left out.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int]] = []
        for text in texts:
            span = _span(text) if len(text) <= LONGEST else None
            if span is not None:
                (v4 if span[0] == 4 else v6).append(span[1:])
        self._v4 = Ranges(v4)
        self._v6 = Ranges(v6)

    def __contains__(self, item: Address | Network) -> bool:
        """Whether the address, or any address of the prefix, is excluded."""
        return self.of(item.version).meeting(*bounds(item)) is not None

    def of(self, version: int) -> Ranges:
        """The excluded addresses of one family, as numbers; read only."""
        return self._v4 if version == 4 else self._v6

    def and_also(self, addresses: Iterable[Address]) -> Self:
        """The same with these addresses."""
        more = type(self)()
        more._v4, more._v6 = self._v4.copy(), self._v6.copy()
        for address in addresses:
            more.of(address.version).add(*bounds(address))
        return more


@functools.lru_cache(maxsize=8192)
def _span(text: str) -> tuple[int, int, int] | None:
    """Family, first and last address of a CIDR; None where it is none."""
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        return None
    try:
        raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return None
    mask, bits = int(length), len(raw) * 8
    if mask > bits:
        return None
    if mask >= 96 and raw[:12] == _MAPPED:
        raw, mask, bits = raw[12:], mask - 96, 32
    rest = bits - mask
    first = int.from_bytes(raw, "big") >> rest << rest
    return 4 if bits == 32 else 6, first, first | ((1 << rest) - 1)


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
