# SPDX-License-Identifier: Apache-2.0
"""Chance can be repeated where the event loop brings it, and nowhere else.

Does:  compares dice in virtual time, on a plain loop, and without a loop.
Place: nsm_sdk.core.chance.
State: none.
"""

from __future__ import annotations

import asyncio
import random

from nsm_sdk.core import dice
from nsm_sdk.testing import rig, run_virtual


async def several() -> list[float]:
    return [dice().random() for _ in range(3)]


def test_in_virtual_time_the_seed_decides() -> None:
    one, same, other = (run_virtual(several, seed=seed) for seed in (7, 7, 8))
    assert one == same
    assert one != other
    assert len(set(one)) == 3


def test_a_role_uses_those_of_its_loop() -> None:
    async def theirs() -> bool:
        async with rig() as bench:
            return bench.runtime.dice is dice()

    assert run_virtual(theirs)


def test_elsewhere_nobody_can_repeat_it() -> None:
    random.seed(7)
    first = dice().random(), *asyncio.run(several())
    random.seed(7)
    second = dice().random(), *asyncio.run(several())
    assert not set(first) & set(second)
