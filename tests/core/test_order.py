# SPDX-License-Identifier: Apache-2.0
"""The order rules, over nested chains and branches."""

from __future__ import annotations

import pytest

from nsm_sdk.core import Chain, Layer, Next, Role
from nsm_sdk.errors import ChainOrderError, Status
from tests.core.elements import (
    AfterTags,
    Branches,
    Keeps,
    KeepsByClass,
    Last,
    NeedsTags,
    Once,
    Opens,
    Passive,
    Tags,
)


def chain(*elements: Layer[Next]) -> Chain[Next]:
    return Chain("hop", *elements)


RIGHT = {
    "nothing": [],
    "needs is met": [Tags("a"), NeedsTags()],
    "needs is met from an outer chain": [Tags("a"), chain(chain(NeedsTags()))],
    "needs is met from a chain before": [chain(Tags("a")), NeedsTags()],
    "after is met": [Tags("a"), AfterTags()],
    "after without the other": [AfterTags()],
    "once": [Once(), Passive()],
    "once in each branch": [Branches(Once(), Once())],
    "last": [Passive(), Last()],
    "last in both branches": [Branches(Last(), chain(Last()))],
    "after in an alternative": [Branches(AfterTags(), Tags("a"))],
    "after is met in a branch": [Branches(Tags("a"), Passive()), AfterTags()],
    "a slot below what opens state": [Opens(), Keeps(), chain(KeepsByClass())],
    "a slot in a branch": [Opens(), Branches(Keeps(), Passive())],
    "a need met above the branches": [Tags("a"), Branches(NeedsTags(), Passive())],
}


@pytest.mark.parametrize("elements", RIGHT.values(), ids=RIGHT.keys())
def test_what_is_in_order(elements: list[Layer[Next]]) -> None:
    right = chain(*elements)
    right.check()
    Role("hop", connection=right).check()


WRONG: dict[str, tuple[list[Layer[Next]], str]] = {
    "needs is missing": ([NeedsTags()], "hop: NeedsTags needs Tags above it"),
    "needs stands below": ([NeedsTags(), Tags("a")], "hop: NeedsTags needs Tags above it"),
    "after stands below": ([AfterTags(), Tags("a")], "hop: AfterTags stands above Tags"),
    "after in a branch": ([Branches(AfterTags(), Passive()), Tags("a")], "hop: AfterTags stands above Tags"),
    "after in an inner chain": (
        [Chain("inner", AfterTags()), Tags("a")],
        "hop / inner: AfterTags stands above Tags",
    ),
    "twice": ([Once(), chain(Once())], "hop / hop: Once occurs twice"),
    "once above and once in a branch": ([Once(), Branches(Passive(), Once())], "hop: Once occurs twice"),
    "once in a branch and once below": ([Branches(Passive(), Once()), Once()], "hop: Once occurs twice"),
    "below the last": ([Last(), Passive()], "hop: Passive stands below Last, which must be last"),
    "below a branch that ends": ([Branches(Last(), Passive()), Passive()], "Passive stands below Last"),
    "a slot without state": ([Keeps()], "hop: Keeps keeps per-connection state, but no Begin stands above it"),
    "a slot of a class": ([KeepsByClass(), Opens()], "KeepsByClass keeps per-connection state"),
    "a slot in a branch": ([Branches(Keeps(), Passive())], "Keeps keeps per-connection state"),
    "a need met in one branch only": ([Branches(Tags("a"), Passive()), NeedsTags()], "NeedsTags needs Tags"),
    "state opened in one branch only": ([Branches(Opens(), Passive()), Keeps()], "Keeps keeps per-connection state"),
    "a need met in another branch": ([Branches(Tags("a"), NeedsTags())], "NeedsTags needs Tags"),
}


@pytest.mark.parametrize(("elements", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_not(elements: list[Layer[Next]], message: str) -> None:
    with pytest.raises(ChainOrderError) as caught:
        chain(*elements).check()
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.status is Status.INTERNAL


async def test_a_role_refuses_a_chain_out_of_order_before_anything_starts() -> None:
    role = Role("hop", connection=chain(Keeps()))
    with pytest.raises(ChainOrderError):
        async with role.serving():
            pytest.fail("it must not be served")
