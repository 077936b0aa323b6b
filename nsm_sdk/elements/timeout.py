# SPDX-License-Identifier: Apache-2.0
"""Connections whose caller is gone.

Does:  closes a connection shortly before the caller's token expires, unless the caller has refreshed it by then. What
       is left of the token's life must suffice for the close: hops below refuse expired tokens.
Place: below `UpdateToken`, above `Monitor` (watchers shall hear of it), in every hop that others call.
State: one timer per connection.
"""

from __future__ import annotations

import logging
import math

from nsm_sdk.api import Connection, Request, describe, expiry, previous
from nsm_sdk.core import Call, Cause, Element, Events, Next, Slot, Timer
from nsm_sdk.errors import InvalidRequest, Unauthenticated

logger = logging.getLogger("nsm_sdk.elements")

DEADLINE_SHARE = 0.25
"""The caller's deadline is kept free for the close if it is at most this share of the life, else `RESERVE`."""
RESERVE = 0.1


def close_after(life: float, request_time: float) -> float:
    """Seconds until the close of a connection that lives `life` seconds more; 0 only if it is over.

    `request_time` is how long the caller gave its request: a close takes about as long. 0 or infinite: no deadline.
    """
    if life <= 0:
        return 0.0
    if not 0 < request_time < math.inf:
        return life
    return life - request_time if request_time <= life * DEADLINE_SHARE else life * (1 - RESERVE)


class Timeout(Element):
    """Close what is not refreshed in time. A request whose caller has no expiry, or a past one, is refused."""

    unique = True

    def __init__(self) -> None:
        self._watch = Slot[_Watch]("timeout")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        request_time = call.remaining()
        expires = _expires(call, request.connection)
        watch = self._watch.get(call) or self._watch.set(call, _Watch(call.events))
        watch.busy = True
        try:
            conn = await next.request(call, request)
        except BaseException:
            watch.busy = False
            if watch.due:
                watch.close()
            raise
        watch.busy = False
        watch.stop()
        if expires is not None:
            delay = close_after(expires - call.runtime.clock.wall(), request_time)
            watch.timer = call.runtime.after(delay, watch.fire)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        # A request follows a reselect's close; should it fail, the old timer still holds.
        if call.cause is not Cause.RESELECT and (watch := self._watch.pop(call)) is not None:
            watch.stop()
        await next.close(call, conn)


class _Watch:
    """The timer of one connection."""

    __slots__ = ("busy", "due", "events", "timer")

    def __init__(self, events: Events) -> None:
        self.events = events
        self.timer: Timer | None = None
        self.busy = False
        """A request is below; if it succeeds, a timer that has run out meanwhile counts for nothing."""
        self.due = False

    def fire(self) -> None:
        if self.busy:
            self.due = True
        else:
            self.close()

    def close(self) -> None:
        self.due = False
        self.events.close()

    def stop(self) -> None:
        self.due = False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _expires(call: Call, conn: Connection) -> float | None:
    """Wall time at which the caller's token expires; refuses a caller's request without one that lies ahead."""
    caller = previous(conn)
    expires = None if caller is None else expiry(caller)
    if call.cause is not Cause.CALL:
        return expires
    if expires is None:
        raise InvalidRequest(
            f"connection {describe(conn)}: the path does not say when the caller's token expires",
            hint="send the token and its expiry in the call's metadata",
        )
    if expires <= call.runtime.clock.wall():
        raise Unauthenticated(
            f"connection {describe(conn)}: the caller's token has expired",
            hint="send a fresh token; compare the clocks of both machines",
        )
    return expires
