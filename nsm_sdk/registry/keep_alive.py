# SPDX-License-Identifier: Apache-2.0
"""Elements that keep a registration alive: refresh, heal, retry.

Each stands below `Begin` in the chain of what registers, `Retry` first, then `Heal`, then `Refresh`: a timer per name
refreshes in time, a watch per name notices what was lost, and what fails is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, ClassVar, TypeVar

import anyio

from nsm_sdk.api import NetworkServiceEndpoint, seconds
from nsm_sdk.api.path import timestamp
from nsm_sdk.core import (
    Backoff,
    Call,
    Cause,
    E,
    Events,
    Found,
    Kind,
    Outcome,
    Query,
    RegistryElement,
    RegistryNext,
    Runtime,
    Slot,
    Timer,
    narrowed,
)
from nsm_sdk.errors import InvalidRequest, NsmError, PermissionDenied, ProgrammingError, Unimplemented, pushback
from nsm_sdk.registry.begin import Begin

logger = logging.getLogger("nsm_sdk.registry")

REFRESH_SHARE = 2 / 3
"""Part of a life after which it is refreshed."""
MIN_REFRESH_PAUSE = 0.2
"""Seconds between refreshes at least, however short the life is."""
FAILED_REFRESH_PAUSE = 1.0
"""Seconds after a refresh that failed."""


def refresh_after(left: float) -> float:
    """Seconds until the next refresh of an entry that lives `left` seconds more."""
    return max(left * REFRESH_SHARE, MIN_REFRESH_PAUSE)


class _RefreshTimer:
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
            self.set(FAILED_REFRESH_PAUSE)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()


class Refresh(RegistryElement[NetworkServiceEndpoint]):
    """Registers an endpoint again after two thirds of the time it was given, and goes on trying when that fails.

    `life`: seconds of life to ask for each time; None takes what the registry gives. Stands below `Begin` and `Retry`.
    """

    needs = (Begin,)
    unique: ClassVar[bool] = True

    def __init__(self, life: float | None = None) -> None:
        self.life = life
        self._timers = Slot[_RefreshTimer]("refresh timer")

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        wall = call.runtime.clock.wall
        if self.life is not None and not entry.HasField("expiration_time"):
            entry.expiration_time.CopyFrom(timestamp(wall() + self.life))
        registered = await next.register(call, entry)
        timer = self._timers.get(call)
        if registered.HasField("expiration_time"):
            if timer is None:
                timer = self._timers.set(call, _RefreshTimer(call.runtime, call.events))
            timer.set(refresh_after(seconds(registered.expiration_time) - wall()))
        elif timer is not None:
            self._stop(call)
        return registered

    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        self._stop(call)
        await next.unregister(call, entry)

    def _stop(self, call: Call) -> None:
        timer = self._timers.pop(call)
        if timer is not None:
            timer.stop()


HEAL_PAUSES = Backoff(0.1, 5.0, 0.5, 1.0)
"""Pauses between attempts to register what was lost."""
FIRST_PATIENCE = 1.0
LAST_PATIENCE = 60.0
"""Seconds within which a new watch must bring the own entry; doubling while it does not."""
STEADY_STREAM = 5.0
"""Seconds that a stream must have lived for the pauses to begin again."""


class Heal(RegistryElement[E]):
    """Registers again what the manager or the registry has lost, with growing pauses, for ever.

    It watches each name that was registered: a stream that breaks, or says that the name is gone though it was not
    unregistered here, means that it is lost. Another endpoint that takes over the name keeps it: one warning, and
    silence until the name is free again. Stands below `Begin` and `Retry`, above `Refresh`.
    """

    needs = (Begin,)
    unique: ClassVar[bool] = True

    def __init__(self, kind: Kind[E]) -> None:
        self._kind = kind
        self._watch = Slot[_Own]("watch of the own registration")

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        name, own = entry.name, self._watch.get(call)
        if own is not None and own.lost:
            if call.cause is Cause.REFRESH:
                return entry
            own.lost = ""
        came = _url(entry)
        registered = await next.register(call, entry)
        if own is None:
            own = self._watch.set(call, _Own())
            following, runtime, events = own, call.runtime, call.events
            own.scope = runtime.spawn(
                lambda: self._follow(runtime, events, name, next, following), f"watch own {self._kind.label}"
            )
        own.urls |= {came, _url(registered)}
        return registered

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        own = self._watch.pop(call)
        if own is not None and own.scope is not None:
            own.scope.cancel()
        if own is not None and own.lost:
            return  # the entry of that name is another's
        await next.unregister(call, entry)

    async def _follow(self, runtime: Runtime, events: Events, name: str, next: RegistryNext[E], own: _Own) -> None:
        failures = 0
        patience = FIRST_PATIENCE
        while True:
            began = runtime.clock.now()
            try:
                told = await self._until_lost(Call(runtime), name, next, patience, own)
                patience = FIRST_PATIENCE if told else min(2 * patience, LAST_PATIENCE)
            except (PermissionDenied, Unimplemented, InvalidRequest) as error:
                logger.info("%s: cannot watch %s %r: %s", runtime.name, self._kind.label, name, error)
                return
            except NsmError as error:
                logger.info("%s: lost sight of %s %r: %s", runtime.name, self._kind.label, name, error)
            if runtime.clock.now() - began >= STEADY_STREAM:
                failures = 0
            outcome = Outcome.FAILED
            while outcome is Outcome.FAILED:
                pause = HEAL_PAUSES.pause(failures, runtime.dice)
                failures += 1
                await anyio.sleep(pause)
                if own.lost:
                    break
                outcome = await _again(events)
            if outcome is Outcome.SKIPPED:
                return

    async def _until_lost(self, call: Call, name: str, next: RegistryNext[E], patience: float, own: _Own) -> bool:
        """Return when the entry is lost; whether it was seen before.

        A registry that was restarted between the registration and the watch tells nothing: its silence counts, too.
        """
        query: Any = self._kind.message()
        query.name = name
        async with aclosing(next.find(call, Query(query, watch=True))) as stream:
            with anyio.move_on_after(patience) as silence:
                found = await anext(stream, None)
            if silence.cancelled_caught or found is None or found.deleted:
                own.lost = ""
                return False
            if not own.lost:
                # However hops on the way have written it, this is our own entry.
                own.urls.add(_url(found.entry))
            async for found in stream:
                if found.entry.name != name:
                    continue
                if found.deleted:
                    own.lost = ""
                    break
                self._compare(call, found.entry, own)
        return True

    def _compare(self, call: Call, entry: E, own: _Own) -> None:
        url = _url(entry)
        if url in own.urls:
            own.lost = ""
        elif not own.lost:
            own.lost = url
            logger.warning(
                "%s: the endpoint at %.200s has taken over the name %r: no client comes here until that one has gone; "
                "give each endpoint a name of its own (NSM_NAME)",
                call.runtime.name,
                url,
                entry.name,
            )


class _Own:
    """What this hop knows of its own entry. `urls`: how its address has been seen; `lost`: the address of who has taken
    over the name."""

    def __init__(self) -> None:
        self.scope: anyio.CancelScope | None = None
        self.urls: set[str] = set()
        self.lost = ""


def _url(entry: object) -> str:
    """Where an endpoint listens; services have no address."""
    return str(getattr(entry, "url", ""))


async def _again(events: Events) -> Outcome:
    """Register again and wait for the outcome."""
    ended = anyio.Event()
    outcomes: list[Outcome] = []

    def done(outcome: Outcome, error: BaseException | None) -> None:
        outcomes.append(outcome)
        ended.set()

    events.refresh(done)
    await ended.wait()
    return outcomes[0]


T = TypeVar("T")

NOT_REPEATED = (InvalidRequest, ProgrammingError, Unimplemented)
"""Errors that another try cannot change."""


class Retry(RegistryElement[E]):
    """Repeats what failed below, with growing pauses, until it succeeds or the caller's time is over.

    `interval`: the first pause in seconds, `longest`: the last one; they double. `try_timeout`: seconds of one try.
    What cannot get better is not repeated. Stands below `Begin`, in what registers or looks up.
    """

    def __init__(
        self, kind: Kind[E], *, interval: float = 0.2, longest: float = 2.0, try_timeout: float = 15.0
    ) -> None:
        self._kind = kind
        self.interval = interval
        self.longest = longest
        self.try_timeout = try_timeout

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        return await self._repeat(call, f"register {entry.name!r}", lambda: next.register(call, self._kind.copy(entry)))

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        await self._repeat(call, f"unregister {entry.name!r}", lambda: next.unregister(call, self._kind.copy(entry)))

    async def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        """Repeated only while nothing has been found yet: what was given out cannot be taken back."""
        tries = 0
        while True:
            given = False
            try:
                async with aclosing(next.find(call, Query(self._kind.copy(query.entry), query.watch))) as stream:
                    async for found in stream:
                        given = True
                        yield found
            except NOT_REPEATED:
                raise
            except NsmError as error:
                if given:
                    raise
                await self._pause(call, tries, f"find {query.entry.name!r}", error)
                tries += 1
            else:
                return

    async def _repeat(self, call: Call, what: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        onward = dict(call.onward)
        tries = 0
        while True:
            try:
                with narrowed(call, self.try_timeout):
                    return await attempt()
            except NOT_REPEATED:
                raise
            except (NsmError, TimeoutError) as error:
                await self._pause(call, tries, what, error)
            tries += 1
            # A failed try may have left its own metadata.
            call.onward.clear()
            call.onward.update(onward)

    async def _pause(self, call: Call, tries: int, what: str, error: Exception) -> None:
        """Wait before the next try; raises `error` when the caller's time would be over."""
        pause = Backoff(self.interval, self.longest, 0.8, 1.0).pause(tries, call.runtime.dice)
        pause = max(pause, pushback(error))
        if call.remaining() <= pause:
            raise error
        logger.info("%s: %s failed, again in %.1f s: %s", call.runtime.name, what, pause, error)
        await anyio.sleep(pause)
