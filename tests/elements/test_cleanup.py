# SPDX-License-Identifier: Apache-2.0
"""Closing at the end.

Does:  all is closed when the role ends, in bounded time; a killed role closes nothing; local clean-up tells nobody.
Place: nsm_sdk.elements.cleanup.
State: none.
"""

from __future__ import annotations

import pytest

from nsm_sdk.core import Chain, Role
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.cleanup import Cleanup
from nsm_sdk.errors import Unavailable
from nsm_sdk.testing import FailTimes, Park, Probe, VirtualClock, current_clock, rig, sample_request, virtual_time


@virtual_time
async def test_all_is_closed_at_the_end() -> None:
    cleanup = Cleanup()
    async with rig(Begin(), cleanup) as bench:
        for name in ("one", "two", "three"):
            await bench.request(sample_request(name))
        await bench.request(sample_request("two"))
        await bench.close(sample_request("one").connection)
        assert len(cleanup) == 2
    closed = [passed.connection.id for passed in bench.seen.of("close")]
    assert sorted(closed) == ["one", "three", "two"]
    assert len(cleanup) == 0


@virtual_time
async def test_the_end_does_not_wait_for_ever() -> None:
    park = Park(verb="close")
    began = VirtualClock().now()
    async with rig(Begin(), Cleanup(within=1.0), park) as bench:
        await bench.request()
    assert park.seen.closes == 1
    assert VirtualClock().now() - began < 5


@virtual_time
async def test_a_close_that_fails_at_the_end_is_not_waited_for() -> None:
    began = VirtualClock().now()
    async with rig(Begin(), Cleanup(), FailTimes(9, lambda: Unavailable("x"), verb="close")) as bench:
        await bench.request()
        await bench.request(sample_request("other"))
    assert VirtualClock().now() == pytest.approx(began)


@virtual_time
async def test_local_clean_up_does_not_tell_the_next_hop() -> None:
    above, below = Probe(), Probe()
    async with rig(Begin(), above, Cleanup(local=True), below) as bench:
        await bench.request(sample_request("one"))
        await bench.request(sample_request("two"))
        await bench.close(sample_request("one").connection)
        assert below.seen.closes == 1
    assert above.seen.closes == 2
    assert below.seen.closes == 1


@virtual_time
async def test_a_role_that_is_killed_closes_nothing() -> None:
    probe = Probe()
    async with Role("r", connection=Chain("r", Begin(), Cleanup(), probe)).serving(clock=current_clock()) as running:
        assert running.bound.connection is not None
        await running.bound.connection.request(running.call(), sample_request())
        running.kill()
        await running.wait_ended()
    assert probe.seen.closes == 0
