# SPDX-License-Identifier: Apache-2.0
"""Connections are kept alive from the side that asked for them.

Does:  requests again when a fifth to two fifths of the shortest token life of the path have passed. A refresh that
       fails is tried again soon, always before the tokens expire; when that does not help, `Refreshing.on_trouble` is
       told, or, without one, the connection is selected anew once its tokens have expired.
Place: below `Begin`, above heal, in hops where a connection begins. Hops on the way do not refresh by themselves.
State: `REFRESHING`, one per connection: when it is due, how it went; read by diagnostics and by heal.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from nsm_sdk.api import Connection, Request, expiry
from nsm_sdk.core import Call, Cause, Element, Events, Next, Outcome, Runtime, Slot, Timer
from nsm_sdk.errors import pushback

logger = logging.getLogger("nsm_sdk.elements")

FLOOR = 0.05
"""Seconds between two refreshes, at least: against storms when clocks disagree or tokens live too short."""


def refresh_after(index: int, lives: Sequence[float | None], floor: float = FLOOR) -> float | None:
    """Seconds until the next refresh by the hop `index`, given how long each segment's token lives (None: unknown).

    Hops nearer to the client come first, so that one refresh serves all. None when nobody says when it expires.
    """
    known = [life for life in lives if life is not None]
    if not known:
        return None
    share = 1 / 3 if len(lives) == 1 else min(0.2 + 0.2 * index / len(lives), 0.9)
    return max(min(known) * share, floor)


def retry_after(pause: float, left: float, floor: float = FLOOR) -> float:
    """Seconds until a failed refresh is tried again: `pause`, but no more than half of the `left` life, if any is."""
    return max(min(pause, left / 2) if left > 0 else pause, floor)


class Refreshing:
    """How refreshing one connection goes; times are wall time in seconds since the epoch."""

    def __init__(self, runtime: Runtime, events: Events) -> None:
        self.next_refresh: float | None = None
        """When the next refresh is due; None while one is on its way, and when nothing in the path expires."""
        self.expires_at: float | None = None
        """When the first token of the path expires."""
        self.failures = 0
        """How many refreshes in a row have failed."""
        self.error: BaseException | None = None
        """Why the latest refresh failed; None after a success."""
        self.on_trouble: Callable[[Refreshing], None] | None = None
        """Called after each failed refresh that makes help desirable: too many in a row, or the tokens have expired.
        Whoever sets it takes care of the connection; refreshing goes on beside it. Must only post, and not raise."""
        self.helping: Callable[[], bool] | None = None
        """Whether whoever set `on_trouble` is requesting again at the moment: then nothing is tried again from here."""
        self._runtime = runtime
        self._events = events
        self._timer: Timer | None = None
        self._busy = False
        self._closed = False
        self._early = 0

    @property
    def _pending(self) -> bool:
        return self._timer is not None and self._timer.pending

    def _left(self) -> float:
        """Seconds until the first token expires."""
        return math.inf if self.expires_at is None else self.expires_at - self._runtime.clock.wall()

    def _stop(self) -> None:
        self.next_refresh = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


REFRESHING: Slot[Refreshing] = Slot("refresh")


class Refresh(Element):
    """Refresh in time. `retry` is the first pause after a failure in seconds, growing to `longest`; after `patience`
    failures in a row, or when tokens have expired, somebody else is asked for help."""

    unique = True
    _refreshing = REFRESHING

    def __init__(
        self,
        *,
        retry: float = 0.2,
        longest: float = 10.0,
        patience: int = 3,
        floor: float = FLOOR,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self.retry = retry
        self.longest = longest
        self.patience = patience
        self.floor = floor
        self._jitter = jitter

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        held = REFRESHING.get(call) or REFRESHING.set(call, Refreshing(call.runtime, call.events))
        held._busy = True
        try:
            conn = await next.request(call, request)
        except BaseException as error:
            held._busy = False
            # While somebody heals by selecting anew, a plain refresh would only ask the old endpoint.
            healed = call.cause is Cause.RESELECT and held.on_trouble is not None
            if held.expires_at is not None and not held._pending and not healed:
                self._again(held, error)
            raise
        held._busy = False
        self._succeeded(held, conn)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if (held := REFRESHING.get(call)) is not None:
            held._stop()
            # A request follows a reselect's close; should it fail, it is this slot that tries again.
            if call.cause is not Cause.RESELECT:
                held._closed = True
                REFRESHING.pop(call)
        await next.close(call, conn)

    def _succeeded(self, held: Refreshing, conn: Connection) -> None:
        held._stop()
        held.failures, held.error = 0, None
        now = held._runtime.clock.wall()
        times = [expiry(hop) for hop in conn.path.path_segments]
        held.expires_at = min((at for at in times if at is not None), default=None)
        # A token that is past even now will hardly be better at once: ask less and less often.
        late = held.expires_at is not None and held.expires_at <= now
        held._early = min(held._early + 1, 30) if late else 0
        floor = min(self.floor * 2**held._early, max(self.longest, self.floor))
        delay = refresh_after(conn.path.index, [None if at is None else at - now for at in times], floor)
        if delay is not None:
            self._arm(held, delay)

    def _arm(self, held: Refreshing, delay: float) -> None:
        held._stop()
        held.next_refresh = held._runtime.clock.wall() + delay
        held._timer = held._runtime.after(delay, lambda: self._fire(held))

    def _fire(self, held: Refreshing) -> None:
        held.next_refresh = None
        if held._busy:
            return  # a request is below; however it ends, it sets the timer

        def done(outcome: Outcome, error: BaseException | None) -> None:
            if held._closed or outcome is Outcome.DONE:
                return
            if outcome is Outcome.FAILED:
                self._failed(held, error)
            self._again(held, error)

        if held.failures and held.on_trouble is None and held._left() <= 0:
            held._events.reselect(done=done)
        else:
            held._events.refresh(done)

    def _failed(self, held: Refreshing, error: BaseException | None) -> None:
        held.failures += 1
        held.error = error
        logger.info("%s: refresh failed, %d in a row: %s", held._runtime.name, held.failures, error)
        if held.on_trouble is not None and (held.failures >= self.patience or held._left() <= 0):
            held.on_trouble(held)

    def _again(self, held: Refreshing, error: BaseException | None) -> None:
        if held.helping is not None and held.helping():
            return
        pause = min(self.retry * 2 ** min(max(held.failures - 1, 0), 32), self.longest)
        jitter = self._jitter or held._runtime.dice.random
        pause = retry_after(pause * (0.75 + 0.5 * jitter()), held._left(), self.floor)
        self._arm(held, max(pause, pushback(error)))
