# SPDX-License-Identifier: Apache-2.0
"""Registrations end.

Does:  gives each endpoint a life: at most `longest`, less if it asks for less or a token on its way ends sooner; and
       unregisters it when that is over and nobody has registered it again. An expiry that lies in the past, or that the
       caller only echoes from our last answer, counts as none asked for.
Place: below `Begin`, in a registry and in a manager.
State: a timer per name, and the expiry that was answered last.
"""

from __future__ import annotations

from typing import ClassVar

from nsm_sdk.api import NetworkServiceEndpoint, Timestamp, seconds
from nsm_sdk.api.path import timestamp
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY, claims, parse_time
from nsm_sdk.core import Call, Cause, RegistryElement, RegistryNext, Slot, Timer
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.registry.begin import Begin
from nsm_sdk.registry.path import PATH_KEY, parse_path

DEFAULT_LIFE = 60.0
"""Seconds that an endpoint lives after it was registered last."""
_ROUNDING = 1e-3
SHORTEST = 1.0
"""Seconds that any registration lives: nothing is removed at once."""


def bounds(call: Call) -> list[float]:
    """When the tokens end that an unregistration would have to carry: the caller's, and ours in the path."""
    found: list[float] = []
    token = call.metadata.get(TOKEN_KEY, "") if call.cause is Cause.CALL else ""
    if token:
        text = call.metadata.get(EXPIRES_KEY)
        peer = claims(token).expires if text is None else _seconds(text)
        if peer is not None:
            found.append(peer)
    path = parse_path(call.onward.get(PATH_KEY))
    if path is not None and path.index < len(path.tokens):
        own = claims(path.tokens[path.index]).expires
        if own is not None:
            found.append(own)
    return found


def _seconds(text: str) -> float | None:
    try:
        return seconds(parse_time(text))
    except InvalidRequest:
        return None


def limit(now: float, longest: float | None, tokens: list[float]) -> float | None:
    """When a registration made `now` ends at the latest; None when nothing says so."""
    ends = [*tokens, *(() if longest is None else (now + longest,))]
    return max(min(ends), now + SHORTEST) if ends else None


def unregister_after(life: float, remaining: float) -> float:
    """Seconds until an entry is removed whose life is that long and whose caller had `remaining` seconds left.

    The caller's time is taken off, so that the removal still gets through; a tenth of the life if it is more than a
    quarter of it.
    """
    life = max(life, SHORTEST)
    if remaining == float("inf"):
        return life
    return life - (remaining if remaining <= life / 4 + _ROUNDING else life / 10)


def _exactly(at: Timestamp) -> int:
    # Not ToNanoseconds: it raises for times that no calendar has.
    return at.seconds * 1_000_000_000 + at.nanos


class Expire(RegistryElement[NetworkServiceEndpoint]):
    """Unregister endpoints that nobody refreshes. `longest`: seconds of life at most; None: as the tokens say."""

    needs = (Begin,)
    unique: ClassVar[bool] = True

    def __init__(self, longest: float | None = DEFAULT_LIFE) -> None:
        self.longest = longest
        self._timer = Slot[Timer]("expiry timer")
        self._answered = Slot[int]("expiry answered")

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        clock = call.runtime.clock
        now = clock.wall()
        remaining = call.remaining()
        last = limit(now, self.longest, bounds(call))
        asked = entry.expiration_time if entry.HasField("expiration_time") else None
        if asked is not None and (seconds(asked) <= now or _exactly(asked) == self._answered.get(call)):
            entry.ClearField("expiration_time")
            asked = None
        if last is not None and (asked is None or last < seconds(asked)):
            entry.expiration_time.CopyFrom(timestamp(last))
        registered = await next.register(call, entry)
        said = registered.expiration_time if registered.HasField("expiration_time") else None
        if said is not None:
            self._answered.set(call, _exactly(said))
            last = seconds(said) if last is None else min(last, seconds(said))
        self._stop(call)
        if last is not None:
            self._timer.set(call, call.runtime.after(unregister_after(last - now, remaining), call.events.close))
        return registered

    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        # Only then: what could not be unregistered now still expires.
        await next.unregister(call, entry)
        self._stop(call)
        self._answered.pop(call)

    def _stop(self, call: Call) -> None:
        timer = self._timer.pop(call)
        if timer is not None:
            timer.cancel()
