# SPDX-License-Identifier: Apache-2.0
"""What a hop has opened is closed when the hop ends.

Does:  closes every connection that is open when the role stops being served, all at once, and waits for that in bounded
       time. A role that is killed closes nothing.
Place: right above `Connect`: what stands below in the chain stops before it does.
State: whether a connection counts; the open connections are the role's.
"""

from __future__ import annotations

import logging

import anyio

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Events, Next, Outcome, Runtime, Service, Slot

logger = logging.getLogger("nsm_sdk.elements")


class Cleanup(Element):
    """Close all at the end, within `within` seconds (at most 5). `local`: free what this hop holds, and do not tell the
    next hop: for a program that is restarted and will ask for the same connections again."""

    unique = True

    def __init__(self, *, within: float = 4.0, local: bool = False) -> None:
        self.within = within
        self.local = local
        self._counted = Slot[Events]("cleanup")
        self._open = _Open(within)

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        self._open.connections.add(self._counted.set(call, call.events))
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if (events := self._counted.pop(call)) is not None:
            self._open.connections.discard(events)
        if not (self.local and self._open.stopping):
            await next.close(call, conn)

    def __len__(self) -> int:
        return len(self._open.connections)


class _Open(Service):
    """The connections of a role that is served."""

    def __init__(self, within: float) -> None:
        self.connections: set[Events] = set()
        self.stopping = False
        self._within = within
        self._runtime: Runtime | None = None

    async def start(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.connections.clear()
        self.stopping = False

    async def stop(self) -> None:
        self.stopping = True
        left = len(self.connections)
        ended = anyio.Event()

        def done(outcome: Outcome, error: BaseException | None) -> None:
            nonlocal left
            left -= 1
            if outcome is Outcome.FAILED:
                logger.warning("closing at the end failed: %s", error)
            if not left:
                ended.set()

        if not left or self._runtime is None or self._runtime.killed:
            return
        for events in list(self.connections):
            events.close(done)
        with anyio.move_on_after(self._within) as scope:
            await ended.wait()
        if scope.cancelled_caught:
            logger.warning("%d connections were not closed in %g s", left, self._within)
