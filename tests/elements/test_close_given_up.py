# SPDX-License-Identifier: Apache-2.0
"""What cannot be undone below is tried for a while and then given up, also where no token says until when."""

from __future__ import annotations

import asyncio

from nsm_sdk.api import Connection
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.elements import Begin
from nsm_sdk.errors import Unavailable
from nsm_sdk.testing import FailTimes, Probe, rig, sample_request, virtual_time


class Clings(Element):
    """Never gives back what it holds."""

    def __init__(self) -> None:
        self._held = Slot[int]("held")

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._held.set(call, 1)
        await next.close(call, conn)


@virtual_time
async def test_a_close_that_never_succeeds_ends() -> None:
    begin, below = Begin(), Probe()
    async with rig(begin, Clings(), below, FailTimes(1, Unavailable("gone"))) as bench:
        try:
            await bench.request(sample_request())
        except Unavailable:
            await asyncio.sleep(600.0)
        assert 2 <= below.seen.closes <= 10
        assert len(begin) == 0
        assert len(bench.runtime.timers) == 0
