# SPDX-License-Identifier: Apache-2.0
"""Ranges behave like a set of numbers.

Does:  compares every operation with a plain set, over any sequence of them.
Place: property tests of `nsm_sdk.ipam.pools`.
State: none.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nsm_sdk.ipam.pools import Ranges

TOP = 63
numbers = st.integers(0, TOP)
spans = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))


def _all(first: int, last: int) -> set[int]:
    return set(range(first, last + 1))


class SetMachine(RuleBasedStateMachine):
    """Ranges beside the set that they stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = Ranges()
        self.model: set[int] = set()

    @rule(span=spans)
    def add(self, span: tuple[int, int]) -> None:
        self.ranges.add(*span)
        self.model |= _all(*span)

    @rule(span=spans)
    def remove(self, span: tuple[int, int]) -> None:
        self.ranges.remove(*span)
        self.model -= _all(*span)

    @rule(span=spans)
    def contains(self, span: tuple[int, int]) -> None:
        assert self.ranges.contains(*span) == (_all(*span) <= self.model)

    @rule(span=spans)
    def meeting(self, span: tuple[int, int]) -> None:
        found = self.ranges.meeting(*span)
        assert (found is not None) == bool(_all(*span) & self.model)
        if found is not None:
            assert _all(*found) <= self.model
            assert min(_all(*span) & self.model) in _all(*found)

    @rule(bits=st.integers(0, 4), start=numbers, avoided=st.lists(spans, max_size=4))
    def lowest_block(self, bits: int, start: int, avoided: list[tuple[int, int]]) -> None:
        size = 1 << bits
        usable = self.model.difference(*(_all(*span) for span in avoided))
        blocks = (at for at in range(0, TOP + 1, size) if at >= start and _all(at, at + size - 1) <= usable)
        assert self.ranges.lowest_block(size, start, Ranges(avoided)) == next(blocks, None)

    @invariant()
    def the_same_numbers_in_the_fewest_ranges(self) -> None:
        pairs = list(self.ranges)
        assert set().union(*(_all(*pair) for pair in pairs)) == self.model
        assert all(left[1] + 1 < right[0] for left, right in pairwise(pairs))
        assert self.ranges.total() == len(self.model)


TestSetMachine = SetMachine.TestCase


@given(st.lists(spans), spans)
def test_a_copy_is_independent(first: list[tuple[int, int]], later: tuple[int, int]) -> None:
    ranges = Ranges(first)
    twin = ranges.copy()
    assert twin == ranges
    twin.add(*later)
    twin.remove(*later)
    assert ranges == Ranges(first)


@given(st.lists(spans))
def test_the_order_of_adding_does_not_matter(added: list[tuple[int, int]]) -> None:
    assert Ranges(added) == Ranges(reversed(added))
