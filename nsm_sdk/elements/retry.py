# SPDX-License-Identifier: Apache-2.0
"""Trying again.

Does:  repeats a request that failed, with growing pauses, until it succeeds, the caller's time is over, or an error
       says that trying again cannot help. Each try has its own time and its own copy of the request.
Place: above `Begin`, which undoes each failed try and lets a close through between tries; or below it, around what
       follows: then a first request that failed is closed below before the next try.
State: below `Begin`, whether the connection has been established.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Backoff, Call, Element, Next, Slot, cleanup_time, narrowed
from nsm_sdk.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NsmError,
    PermissionDenied,
    ProgrammingError,
    Unauthenticated,
    Unimplemented,
    pushback,
)

logger = logging.getLogger("nsm_sdk.elements")

PERMANENT: tuple[type[NsmError], ...] = (
    InvalidRequest,
    PermissionDenied,
    ProgrammingError,
    Unauthenticated,
    Unimplemented,
)
"""What trying again does not change."""
UNDO_TIME = 2.0
LAST_SHARE = 0.98
"""Share of the caller's remaining time that a try may take."""

# Not an attribute of the element: above Begin there is no state, and none is needed.
_ESTABLISHED: Slot[bool] = Slot("established below retry")


class Retry(Element):
    """Repeat a request that failed until it succeeds or the caller's time is over, then raise the last error.

    `attempts`: how many tries at most, default no limit.
    `per_try`: seconds that one try may take, default 15.
    `pause`, `longest`: seconds between two tries, doubling from the first (0.2) to the second (5). A peer that asks for
    a longer pause (`retry_after`) gets it.
    `permanent`: errors that trying again does not change; they are raised at once. With an empty one also defects of
    the elements below are tried again.
    `jitter`: whether pauses are spread by a quarter at random, so that many clients do not come back together.
    `failed`: called after each try that failed, with the request, the error and the seconds that it took; it must not
    block.
    """

    def __init__(
        self,
        *,
        attempts: int | None = None,
        per_try: float = 15.0,
        pause: float = 0.2,
        longest: float = 5.0,
        permanent: tuple[type[NsmError], ...] = PERMANENT,
        jitter: bool = True,
        failed: Callable[[Request, NsmError, float], None] | None = None,
    ) -> None:
        self.attempts = attempts
        self.per_try = per_try
        self.pause = pause
        self.longest = longest
        self._permanent = permanent
        self.jitter = jitter
        self._backoff = Backoff(pause, longest, low=0.75, high=1.25)
        self._failed = failed

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        state, url, count = call.state, call.url, 0
        undo = state is not None and not _ESTABLISHED.get(call)
        told: NsmError | None = None
        while True:
            count += 1
            call.state, call.url = state, url
            copy = Request()
            copy.CopyFrom(request)
            began = call.runtime.clock.now()
            try:
                # A little less than what the caller has: it shall read why tries failed, not only that time ran out.
                with narrowed(call, min(self.per_try, call.remaining() * LAST_SHARE)):
                    conn = await next.request(call, copy)
            except TimeoutError as ended:
                latest: NsmError = DeadlineExceeded(
                    f"no answer within {self.per_try:g} s", hint="look why the hops below are slow, or allow more time"
                )
                error = told or latest
                error.__cause__ = error.__cause__ or ended
            except NsmError as failed:
                error = told = latest = failed
            except Exception as defect:
                if self._permanent:
                    raise
                error = told = latest = call.runtime.explain(defect)
            else:
                if state is not None:
                    _ESTABLISHED.set(call, True)
                return conn
            if self._failed is not None:
                self._failed(request, call.runtime.explain(latest), call.runtime.clock.now() - began)
            pause = self._before_next(call, count, error)
            if undo:
                await self._undo(call, request.connection, next)
            await anyio.sleep(pause)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if call.state is not None:
            _ESTABLISHED.pop(call)
        await next.close(call, conn)

    def _before_next(self, call: Call, count: int, error: NsmError) -> float:
        """Seconds until the next try; raises `error` when there is none."""
        pause = max(self._backoff.pause(count - 1, call.runtime.dice if self.jitter else None), pushback(error))
        if isinstance(error, self._permanent) or count == self.attempts or call.remaining() <= pause:
            if count > 1:
                error.add_note(f"after {count} tries")
            raise error
        logger.info("%s: try %d failed, again in %.2f s: %s", call.runtime.name, count, pause, error)
        return pause

    async def _undo(self, call: Call, conn: Connection, next: Next) -> None:
        copy = Connection()
        copy.CopyFrom(conn)
        with cleanup_time(UNDO_TIME):
            try:
                await next.close(call, copy)
            except NsmError as error:
                logger.warning("%s: closing before the next try failed: %s", call.runtime.name, error)
