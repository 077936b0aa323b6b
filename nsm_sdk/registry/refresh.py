# SPDX-License-Identifier: Apache-2.0
"""Registrations stay.

Does:  registers an endpoint again after two thirds of the time it was given, and goes on trying when that fails. With
       `life` it asks for that long a life each time.
Place: below `Begin` and `Retry`, in whoever registers.
State: a timer per name.
"""

from __future__ import annotations

from typing import ClassVar

from nsm_sdk.api import NetworkServiceEndpoint, seconds
from nsm_sdk.api.path import timestamp
from nsm_sdk.core import Call, Events, Outcome, RegistryElement, RegistryNext, Runtime, Slot, Timer
from nsm_sdk.registry.begin import Begin

SHARE = 2 / 3
SOONEST = 0.2
"""Seconds between refreshes at least, however short the life is."""
AGAIN = 1.0
"""Seconds after a refresh that failed."""


def refresh_after(left: float) -> float:
    """Seconds until the next refresh of an entry that lives `left` seconds more."""
    return max(left * SHARE, SOONEST)


class _Clockwork:
    """The timer of one name: it posts, and tries again after failures."""

    __slots__ = ("_events", "_runtime", "_stopped", "_timer")

    def __init__(self, runtime: Runtime, events: Events) -> None:
        self._runtime = runtime
        self._events = events
        self._timer: Timer | None = None
        self._stopped = False

    def set(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._stopped:
            self._timer = self._runtime.after(delay, lambda: self._events.refresh(self._ended))

    def _ended(self, outcome: Outcome, error: BaseException | None) -> None:
        if outcome is Outcome.FAILED:
            self.set(AGAIN)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()


class Refresh(RegistryElement[NetworkServiceEndpoint]):
    """Keep endpoints registered. `life`: seconds of life to ask for; None takes what the registry gives."""

    needs = (Begin,)
    unique: ClassVar[bool] = True

    def __init__(self, life: float | None = None) -> None:
        self.life = life
        self._clockwork = Slot[_Clockwork]("refresh timer")

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        wall = call.runtime.clock.wall
        if self.life is not None and not entry.HasField("expiration_time"):
            entry.expiration_time.CopyFrom(timestamp(wall() + self.life))
        registered = await next.register(call, entry)
        clockwork = self._clockwork.get(call)
        if registered.HasField("expiration_time"):
            if clockwork is None:
                clockwork = self._clockwork.set(call, _Clockwork(call.runtime, call.events))
            clockwork.set(refresh_after(seconds(registered.expiration_time) - wall()))
        elif clockwork is not None:
            self._stop(call)
        return registered

    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        self._stop(call)
        await next.unregister(call, entry)

    def _stop(self, call: Call) -> None:
        clockwork = self._clockwork.pop(call)
        if clockwork is not None:
            clockwork.stop()
