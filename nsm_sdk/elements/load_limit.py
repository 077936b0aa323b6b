# SPDX-License-Identifier: Apache-2.0
"""So many Requests at once, and no more.

Does:  refuses a Request with Unavailable while as many are being worked on as this hop can finish in good time, and
       says when to try again: each refused caller gets a moment of its own, one after the other, at the rate at which
       Requests have been finished lately. Closes always pass: they make room. Refreshes of connections that live here
       always pass, too: others must not take away from them.
Place: high in a chain that peers call, so that a refusal costs next to nothing: above `Begin`.
State: how many are being worked on, how long one takes, and when the next refused caller shall come again.
"""

from __future__ import annotations

from collections.abc import Callable

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.errors import Unavailable

MOST_AT_ONCE = 3072
"""Requests of one hop. Measured with all hops of a mesh on two cores: 3,000 at once are finished in 7 s, which is half
of the usual time-out; 6,000 were not finished in minutes, because what has timed out has to be undone beside."""
LONGEST_WAIT = 10.0
"""Seconds after which a refused caller may try again, at most."""
FIRST_GUESS = 0.5
"""Seconds that a Request is believed to take until one has been finished."""
_WEIGHT = 0.1
"""How much the latest Request counts for the mean."""


class LoadLimit(Element):
    """Work on at most `most` Requests at once; Unavailable with `retry_after` for more.

    `lives`: whether the connection of an id lives at this hop; its Requests are neither counted nor refused. Default:
    none does.
    """

    unique = True

    def __init__(self, most: int = MOST_AT_ONCE, *, lives: Callable[[str], bool] | None = None) -> None:
        self.most = most
        self._lives = lives
        self._running = 0
        self._takes = FIRST_GUESS
        self._next = 0.0

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if self._lives is not None and self._lives(request.connection.id):
            return await next.request(call, request)
        now = call.runtime.clock.now
        if self._running >= self.most:
            raise Unavailable(
                f"overrun: {self._running} Requests are being worked on, as many as this hop takes at once",
                hint="try again after the time that comes with this error",
                retry_after=self._turn(call),
            )
        began = now()
        self._running += 1
        try:
            return await next.request(call, request)
        finally:
            self._running -= 1
            self._takes += _WEIGHT * (now() - began - self._takes)

    def _turn(self, call: Call) -> float:
        """Seconds until a place will be free for this caller, behind all who were refused before."""
        now = call.runtime.clock.now()
        turn = max(self._next, now) + self._takes / self.most
        if turn - now > LONGEST_WAIT:
            return LONGEST_WAIT * call.runtime.dice.uniform(0.5, 1.0)
        self._next = turn
        return turn - now

    @property
    def running(self) -> int:
        """How many Requests are being worked on."""
        return self._running
