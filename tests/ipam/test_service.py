# SPDX-License-Identifier: Apache-2.0
"""The stream is the lease.

Does:  whatever peers send, streams hold disjoint prefixes, and a stream that ends gives everything back.
Place: property tests of `nsm_sdk.ipam.service`.
State: none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import PrefixRequest, PrefixType
from nsm_sdk.errors import Exhausted, InvalidRequest, NsmError
from nsm_sdk.ipam import PrefixSupply, manage_prefixes
from nsm_sdk.ipam.addresses import Network, parse_network
from tests.ipam.driver import run

texts = st.one_of(
    st.sampled_from(["", "10.0.0.0/26", "10.0.0.64/27", "10.0.0.7/28", "10.0.0.0/8", "fd00::/64", "rubbish"]),
    st.text(max_size=10),
)
messages = st.builds(
    lambda type_, prefix, exclude: PrefixRequest(type=type_, prefix=prefix, exclude_prefixes=exclude),
    st.sampled_from([1, 1, 1, 2, 7]),
    texts,
    st.lists(texts, max_size=3),
)


async def _sequence(items: list[PrefixRequest]) -> AsyncIterator[PrefixRequest]:
    for item in items:
        yield item


@given(st.lists(messages, max_size=20))
def test_a_stream_gets_disjoint_prefixes_and_leaves_nothing(items: list[PrefixRequest]) -> None:
    supply = PrefixSupply("10.0.0.0/25", length=27)

    async def stream() -> None:
        held: list[Network] = []
        left = list(items)

        async def requests() -> AsyncIterator[PrefixRequest]:
            for item in left:
                if item.type == PrefixType.DELETE:
                    held[:] = [net for net in held if [net] != _parsed(item.prefix)]
                yield item

        async with aclosing(manage_prefixes(supply, requests())) as answers:
            try:
                async for answer in answers:
                    held.append(parse_network(answer.prefix))
                    assert not any(one.overlaps(other) for one, other in combinations(held, 2))
                    assert sum(net.num_addresses for net in held) + supply.pool.size == 128
            except Exhausted:
                assert supply.pool.size <= 128

    run(stream())
    assert [str(net) for net in supply.pool.prefixes()] == ["10.0.0.0/25"]


def _parsed(text: str) -> list[Network]:
    try:
        return [parse_network(text)]
    except InvalidRequest:
        return []


async def test_a_stream_that_is_left_early_gives_back() -> None:
    supply = PrefixSupply("10.0.0.0/25", length=27)
    allocate = PrefixRequest(type=PrefixType.ALLOCATE)
    async with aclosing(manage_prefixes(supply, _sequence([allocate, allocate]))) as answers:
        assert (await anext(answers)).prefix == "10.0.0.0/27"
        assert supply.pool.size == 96
    assert supply.pool.size == 128


async def test_a_request_without_type_ends_the_stream_and_gives_back() -> None:
    supply = PrefixSupply("10.0.0.0/25", length=27)
    requests = _sequence([PrefixRequest(type=PrefixType.ALLOCATE), PrefixRequest()])
    async with aclosing(manage_prefixes(supply, requests)) as answers:
        await anext(answers)
        with pytest.raises(InvalidRequest, match="request type is undefined"):
            await anext(answers)
    assert supply.pool.size == 128


async def test_another_stream_cannot_give_back_what_is_not_its_own() -> None:
    supply = PrefixSupply("10.0.0.0/25", length=26)
    mine = manage_prefixes(supply, _sequence([PrefixRequest(type=PrefixType.ALLOCATE)] * 2))
    await anext(mine)
    other = manage_prefixes(supply, _sequence([PrefixRequest(type=PrefixType.DELETE, prefix="10.0.0.0/26")]))
    assert [answer async for answer in other] == []
    assert supply.pool.size == 64
    await mine.aclose()


def test_a_wish_meets_the_same_exclusions() -> None:
    supply = PrefixSupply("10.0.0.0/24", length=26)
    assert str(supply.take("10.0.0.64/26", ["10.0.0.64/32"])) == "10.0.0.0/26"


def test_an_odd_wish_does_not_make_later_ones_overlap() -> None:
    supply = PrefixSupply("172.16.0.0/22", length=24)
    assert str(supply.take("172.16.0.0/30")) == "172.16.0.0/30"
    assert str(supply.take()) == "172.16.1.0/24"


@pytest.mark.parametrize(("prefix", "length"), [("10.0.0.0/24", 23), ("10.0.0.0/24", 33), ("rubbish", 24)])
def test_a_supply_must_make_sense(prefix: str, length: int) -> None:
    with pytest.raises(NsmError):
        PrefixSupply(prefix, length=length)
