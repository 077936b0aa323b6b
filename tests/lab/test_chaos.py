# SPDX-License-Identifier: Apache-2.0
"""Hours of random trouble in a whole mesh, in virtual time.

Does:  real hops in one process break and come back at random under connections that heal; `python -m benchmarks.chaos`
       is the same for a day and a thousand connections.
Place: nsm_sdk.lab.scenarios.chaos.
State: a mesh per test.
"""

from __future__ import annotations

import logging

import pytest

from nsm_sdk.heal import story
from nsm_sdk.lab import Cluster
from nsm_sdk.lab.scenarios.chaos import Chaos
from nsm_sdk.testing import run_virtual, virtual_time


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Hours of trouble are a lot of warnings."""
    caplog.set_level(logging.CRITICAL, "nsm_sdk")


@virtual_time
async def test_without_trouble_nothing_heals() -> None:
    async with Cluster(token_life=3600.0, registration_life=600.0) as cluster:
        report = await Chaos(cluster, 1).live(5, 3.0, faults=False)
        assert not report.wrong, report.wrong[0]
        assert (report.heals, report.moves) == (0, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 4])
@virtual_time
async def test_no_connection_is_lost_and_none_heals_without_a_cause(seed: int) -> None:
    async with Cluster(token_life=3600.0, registration_life=600.0) as cluster:
        report = await Chaos(cluster, seed).live(20, 6.0)
        assert not report.wrong, report.wrong[0]
        assert report.heals > 0
        assert report.moves > 0
        assert len(report.faults) > 3


@pytest.mark.long
def test_the_same_seed_gives_the_same_story() -> None:
    async def live(seed: int) -> list[str]:
        async with Cluster(token_life=3600.0, registration_life=600.0) as cluster:
            chaos = Chaos(cluster, seed)
            report = await chaos.live(5, 2.0)
            assert not report.wrong, report.wrong[0]
            assert report.heals > 0
            return [story(journal) for journal in chaos.heal.journals]

    first, second, other = run_virtual(live, 2, seed=2), run_virtual(live, 2, seed=2), run_virtual(live, 3, seed=3)
    assert first == second
    assert first != other
