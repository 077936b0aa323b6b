# SPDX-License-Identifier: Apache-2.0
"""Several checks as one, and the choice among them.

Does:  `All` is alive when all its parts are. `Auto` takes, per connection, what the connection and the machine allow:
       link events for those with an interface, pings where there are addresses on both sides, and neighbours where
       there is only one's own.
Place: `Auto` is what clients use when nothing else is said.
State: that of the parts; what could not be used, so that it is said once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from nsm_sdk.core import Runtime
from nsm_sdk.heal.probes.carrier import Carrier
from nsm_sdk.heal.probes.icmp import Icmp
from nsm_sdk.heal.probes.neighbour import Neighbour
from nsm_sdk.heal.probes.probe import ALIVE, Cancel, Inside, LinkEvents, Probe, Target, Tell, Verdict, here

logger = logging.getLogger("nsm_sdk.heal")

_Way: TypeAlias = Callable[[Runtime, Target, float, Tell], Cancel | None]


class All(Probe):
    """Every part must find the connection alive; parts that cannot check it have no vote."""

    def __init__(self, *parts: Probe) -> None:
        self.parts = parts

    async def start(self, runtime: Runtime) -> None:
        for part in self.parts:
            await part.acquire(runtime)

    async def stop(self) -> None:
        for part in self.parts:
            await part.release()

    def why_not(self, target: Target) -> str:
        reasons = [part.why_not(target) for part in self.parts]
        return "" if not all(reasons) else "; ".join(reasons)

    def choose(self, target: Target) -> Probe | None:
        able = tuple(part for part in self.parts if not part.why_not(target))
        if not able:
            return None
        return able[0] if len(able) == 1 else _Chosen(able)

    def begin(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel:
        return _Round(runtime, tell, [part.begin for part in self.parts], target, timeout).cancel

    def tick(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel | None:
        round_ = _Round(runtime, tell, [part.tick for part in self.parts], target, timeout)
        return round_.cancel if round_.asked else None

    def follow(self, runtime: Runtime, target: Target, tell: Tell) -> Cancel | None:
        followed = [stop for part in self.parts if (stop := part.follow(runtime, target, tell)) is not None]
        if not followed:
            return None

        def cancel() -> None:
            for stop in followed:
                stop()

        return cancel


class _Chosen(All):
    """Some of another's parts, which live as long as that one."""

    def __init__(self, parts: tuple[Probe, ...]) -> None:
        super().__init__(*parts)

    async def start(self, runtime: Runtime) -> None:
        return None

    async def stop(self) -> None:
        return None


class _Round:
    """One check by several probes."""

    __slots__ = ("_cancels", "_left", "_tell", "_voted")

    def __init__(self, runtime: Runtime, tell: Tell, ways: list[_Way], target: Target, timeout: float) -> None:
        self._tell: Tell | None = tell
        self._voted: Verdict = Verdict(None, "no check could be made")
        begun = [way(runtime, target, timeout, self._told) for way in ways]
        self._cancels = [cancel for cancel in begun if cancel is not None]
        self._left = len(self._cancels)

    @property
    def asked(self) -> bool:
        """Whether any part has begun a check."""
        return bool(self._cancels)

    def _told(self, verdict: Verdict) -> None:
        if self._tell is None:
            return
        self._left -= 1
        if verdict.alive is False:
            self._end(verdict)
            return
        if verdict.alive:
            self._voted = ALIVE
        elif self._voted.alive is None:
            self._voted = verdict
        if not self._left:
            self._end(self._voted)

    def _end(self, verdict: Verdict) -> None:
        tell = self._tell
        self.cancel()
        if tell is not None:
            tell(verdict)

    def cancel(self) -> None:
        """No verdict."""
        self._tell = None
        for stop in self._cancels:
            stop()


class Auto(Probe):
    """Choose by connection. `links` and `inside` are the ports of `Carrier` and of those that open sockets."""

    def __init__(self, *, links: LinkEvents | None = None, inside: Inside = here) -> None:
        self.carrier = Carrier(links=links, inside=inside)
        self.icmp = Icmp(strict=True, inside=inside)
        self.neighbour = Neighbour(inside=inside)
        self._said: set[str] = set()

    async def start(self, runtime: Runtime) -> None:
        for part in (self.carrier, self.icmp, self.neighbour):
            await part.acquire(runtime)

    async def stop(self) -> None:
        for part in (self.carrier, self.icmp, self.neighbour):
            await part.release()

    def why_not(self, target: Target) -> str:
        if not target.interface:
            return "the connection has no interface on this machine"
        return ""

    def choose(self, target: Target) -> Probe | None:
        if self.why_not(target):
            return None
        parts: list[Probe] = [self.carrier]
        for probe in (self.icmp, self.neighbour):
            reason = probe.why_not(target)
            if not reason:
                parts.append(probe)
                break
            if reason not in self._said and len(self._said) < 64:
                self._said.add(reason)
                logger.warning("%s is not checked by %s: %s", target.id, type(probe).__name__.lower(), reason)
        return parts[0] if len(parts) == 1 else _Chosen(tuple(parts))
