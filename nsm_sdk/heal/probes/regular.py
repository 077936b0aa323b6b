# SPDX-License-Identifier: Apache-2.0
"""Checking one connection again and again.

Does:  starts a check every interval (random variation only shortens it), counts failures in a row, and tells when the
       connection turns out dead or alive; what a probe hears by itself counts at once. Checks may overlap: a slow one
       does not delay the next, and an old failure says nothing against a newer success.
Place: used by `Heal`, one per connection that is watched.
State: timers and checks under way.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from nsm_sdk.core import Runtime, Timer
from nsm_sdk.heal.probes.base import Cancel, Probe, Target, Tell, Verdict

Report: TypeAlias = Callable[[Verdict, float | None], None]
"""(verdict, when it was last alive)"""

GRID = 0.01
"""Checks start on multiples of this, so that one turn of the loop starts many; seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """How often and how long; times in seconds. A silent failure is detected within
    `interval` x `failures` + `timeout`."""

    interval: float = 0.2
    timeout: float = 1.0
    """Time budget of one check."""
    failures: int = 1
    """Checks in a row that must fail."""
    overlap: bool = True
    """Start a check while an earlier one is waiting for its answer."""
    jitter: float = 0.2
    """The interval is shortened at random by up to this share: timers are late and repairs take time, yet a failure
    shall on average be healed within half an interval and the time-out."""


class Regular:
    """The watch over one connection; `stop` ends it."""

    def __init__(
        self, runtime: Runtime, probe: Probe, target: Target, liveness: Liveness, dice: random.Random, report: Report
    ) -> None:
        self.probe = probe
        self.target = target
        self.alive_at: float | None = None
        """When it was last known to be alive."""
        self._runtime = runtime
        self._liveness = liveness
        self._dice = dice
        self._report = report
        self._told: bool | str = ""
        self._failures = 0
        self._number = 0
        self._alive_number = 0
        self._checks: dict[int, Cancel] = {}
        self._stopped = False
        self._holds = 0
        self._doubtful = False
        self._timer: Timer | None = None
        self._asked: Cancel | None = None
        self._arm()
        self._unfollow = probe.follow(runtime, target, self._heard)
        if self._unfollow is not None:
            self._start(probe.begin)

    def stop(self) -> None:
        """Check no more, and tell nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._unfollow is not None:
            self._unfollow()
        if self._asked is not None:
            self._asked()
        for cancel in list(self._checks.values()):
            cancel()
        self._checks.clear()

    def renew(self, target: Target) -> None:
        """The connection was confirmed: what was told before counts no more."""
        self.target = target
        self._told = ""
        self._failures = 0
        self._alive_number = self._number
        if self._unfollow is not None:
            # Trouble that went on all the time makes no new event.
            self._start(self.probe.begin)

    def hold(self) -> None:
        """A request is under way, and may change addresses: what may be its work is not believed until `go_on`."""
        self._holds += 1

    def go_on(self) -> None:
        """The end of `hold`: look again where that is needed."""
        self._holds -= 1
        if self._doubtful and not self._holds and not self._stopped:
            self._doubtful = False
            self._start(self.probe.begin)

    def ask(self, tell: Tell) -> None:
        """One check now, whatever the regular ones say; a new question replaces an older one."""
        if self._asked is not None:
            self._asked()
        self._asked = self.probe.begin(self._runtime, self.target, self._liveness.timeout, tell)

    def _arm(self) -> None:
        interval = self._liveness.interval * (1 - self._liveness.jitter * self._dice.random())
        now = self._runtime.clock.now()
        at = now + interval
        if interval > 4 * GRID:
            at = max(at // GRID * GRID, now + GRID)
        self._timer = self._runtime.timers.at(at, self._tick)

    def _tick(self) -> None:
        self._arm()
        if self._checks and not self._liveness.overlap:
            return
        if not self._start(self.probe.tick) and self._timer is not None:
            # It hears failures by itself.
            self._timer.cancel()

    def _start(self, way: Callable[[Runtime, Target, float, Tell], Cancel | None]) -> bool:
        self._number += 1
        number = self._number

        def told(verdict: Verdict) -> None:
            self._checks.pop(number, None)
            self._checked(number, verdict)

        cancel = way(self._runtime, self.target, self._liveness.timeout, told)
        if cancel is not None:
            self._checks[number] = cancel
        return cancel is not None

    def _checked(self, number: int, verdict: Verdict) -> None:
        if self._stopped:
            return
        if verdict.alive:
            self.alive_at = self._runtime.clock.now()
            self._alive_number = max(number, self._alive_number)
            self._failures = 0
            self._tell(verdict)
        elif verdict.alive is None:
            self._tell(verdict)
        elif number > self._alive_number:
            self._failures += 1
            if self._failures >= self._liveness.failures:
                self._tell(verdict)

    def _heard(self, verdict: Verdict) -> None:
        """What comes by itself is certain, unless we cause it."""
        if self._stopped or verdict.alive is not False:
            return
        if verdict.passing and self._holds:
            self._doubtful = True
        else:
            self._tell(verdict)

    def _tell(self, verdict: Verdict) -> None:
        now = "unknown" if verdict.alive is None else verdict.alive
        if now != self._told:
            self._told = now
            self._report(verdict, self.alive_at)
