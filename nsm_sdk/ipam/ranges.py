# SPDX-License-Identifier: Apache-2.0
"""A set of whole numbers kept as ranges.

Does:  adds, removes and finds numbers of any size; neighbours are merged, so a whole IPv6 network is one entry.
       Finding costs the logarithm of the number of ranges.
Place: below every pool; knows nothing of addresses.
State: two parallel sorted lists, the first and the last number of each range.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Disjoint, sorted, merged ranges of whole numbers; both ends of a range belong to it."""

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
