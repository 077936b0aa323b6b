# SPDX-License-Identifier: Apache-2.0
"""The candidate cache: a registry is watched, not asked for every request.

Does:  follows the queries that are in use, each in the background (`Follow`), and answers from what it follows. What is
       registered through the same hop is known at once. "None" is believed only from a plain Find, and then at once;
       while the registry cannot be reached it waits, at most half of the caller's time, and goes on answering from what
       it knew. When a stream breaks it is opened again with growing pauses; a watch marks no end of its snapshot, so
       entries that the new stream has not brought are asked for by plain Finds until each is either there or gone.
Place: shared service of the elements that choose (`Discover`, `DiscoverForwarder`).
State: one `Follow` per query in use; those that are not used are dropped after a while.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Any, Generic, TypeVar

import anyio

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import (
    NS,
    NSE,
    Backoff,
    Bound,
    Call,
    E,
    Kind,
    Query,
    RegistryElement,
    RegistryNext,
    Runtime,
    Service,
    Timer,
    find_all,
)
from nsm_sdk.errors import Cancelled, ConnectionRetired, DeadlineExceeded, NsmError, ProgrammingError, Unavailable
from nsm_sdk.registry.begin import Begin
from nsm_sdk.registry.connect import registry_of
from nsm_sdk.registry.matching import has_expired
from nsm_sdk.registry.store import matcher_of

logger = logging.getLogger("nsm_sdk.registry")

STREAM_PAUSES = Backoff(0.05, 2.0, 0.5, 1.0)
"""Pauses between attempts to open a stream."""
FIRST_RECHECK = 0.5
"""Seconds until entries that are only in an older snapshot are asked for again; doubling."""
STEADY_STREAM = 5.0
"""Seconds that a stream must have lived for the pauses to begin again."""
FIND_TIME = 5.0
"""Seconds for a plain Find of this module's own."""


class Standing(StrEnum):
    """How far the entries can be trusted."""

    LIVE = "live"
    """The stream is open, and everything held is confirmed by it or by a Find since."""
    READING = "reading"
    """The stream was opened again; some entries are not confirmed yet."""
    BROKEN = "broken"
    """The registry cannot be reached; entries are as they were last."""


class Follow(Generic[E]):
    """Entries that match `query`, kept up to date in the background; `entries` are those that a Find has just given.

    Entries are shared: read only.
    """

    def __init__(self, runtime: Runtime, registry: RegistryNext[E], query: E, entries: Iterable[E] = ()) -> None:
        self.query = query
        self.entries: dict[str, E] = {entry.name: entry for entry in entries}
        self.standing = Standing.READING
        self.used = runtime.clock.now()
        self._runtime = runtime
        self._registry = registry
        self._since = self.used
        self._changed = anyio.Event()
        self._older: set[str] = set()
        self._recent = True
        self._scope = runtime.spawn(self._run, "candidates")

    def age(self) -> float:
        """Seconds since the entries were last known to be right; 0 while the stream is live."""
        return 0.0 if self.standing is Standing.LIVE else self._runtime.clock.now() - self._since

    def put(self, entry: E) -> None:
        """The entry is registered, although the stream may not have told of it yet."""
        self.entries[entry.name] = entry
        self._notify()

    def drop(self, name: str) -> None:
        """There is no such entry, although the stream may not have told of it yet."""
        if self.entries.pop(name, None) is not None:
            self._older.discard(name)
            self._notify()

    def close(self) -> None:
        """Stop following."""
        self._scope.cancel()

    async def change(self) -> None:
        """Wait until an entry or the standing changes."""
        await self._changed.wait()

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _stand(self, standing: Standing) -> None:
        if self.standing is Standing.LIVE:
            self._since = self._runtime.clock.now()
        if standing is not self.standing:
            self.standing = standing
            self._notify()

    async def _run(self) -> None:
        failures = 0
        while True:
            self._older = set(self.entries)
            began, standing = self._runtime.clock.now(), Standing.BROKEN
            try:
                async with anyio.create_task_group() as tasks:
                    # The order matters little: a Find that overtakes the watch only leaves names to be asked again.
                    tasks.start_soon(self._confirm)
                    await self._read()
                    tasks.cancel_scope.cancel()
            except* (NsmError, TimeoutError) as errors:
                if isinstance(errors.exceptions[0], ConnectionRetired):
                    # The registry is there; only the connection below the stream has come of age.
                    standing = Standing.READING
                # Once per outage is news; the attempts to end it are not.
                level = logging.DEBUG if self.standing is Standing.BROKEN else logging.INFO
                what = _what(self.query)
                logger.log(level, "%s: watching %r broke: %s", self._runtime.name, what, errors.exceptions[0])
            except* Exception as errors:
                logger.exception("%s: watching %r failed", self._runtime.name, _what(self.query), exc_info=errors)
            if self._runtime.clock.now() - began >= STEADY_STREAM:
                failures = 0
            self._stand(standing)
            await anyio.sleep(STREAM_PAUSES.pause(failures, self._runtime.dice))
            failures += 1

    async def _read(self) -> None:
        async with aclosing(self._registry.find(Call(self._runtime), Query(self.query, watch=True))) as stream:
            async for found in stream:
                name = found.entry.name
                self._older.discard(name)
                if found.deleted:
                    self.entries.pop(name, None)
                else:
                    self.entries[name] = found.entry
                if not self._older:
                    self._stand(Standing.LIVE)
                self._notify()

    async def _confirm(self) -> None:
        """Drop what is left of an older snapshot and exists no more; then the entries are right."""
        pause = FIRST_RECHECK
        if self._recent:
            # They come from a Find a moment ago; the stream will most likely tell of all of them at once.
            self._recent = False
            await anyio.sleep(pause)
        while self._older:
            call = Call(self._runtime, deadline=self._runtime.clock.now() + FIND_TIME)
            with anyio.fail_after(FIND_TIME):
                there = {entry.name for entry in await find_all(self._registry, call, Query(self.query))}
            for name in self._older - there:
                self.entries.pop(name, None)
            self._older &= there
            if not self._older:
                self._stand(Standing.LIVE)
                self._notify()
                return
            self._stand(Standing.READING)
            await anyio.sleep(pause)
            pause = min(2 * pause, 30.0)


def _what(query: object) -> str:
    return " ".join(str(query).split())


T = TypeVar("T")

IDLE = 300.0
"""Seconds after which a query that nobody used is no longer followed."""
MOST_PATIENT = 15.0
"""Seconds to wait at most for a registry that cannot be reached, when the caller has no deadline."""
RETRY_PAUSE = 0.2
"""Seconds between attempts to reach it."""
AWAY = (Unavailable, Cancelled, DeadlineExceeded, TimeoutError)
"""Errors that say that a registry cannot be reached, as opposed to one that refuses."""


class Candidates(Service):
    """Services and endpoints of a registry. `registry`: what it offers, or a function that dials it at the start.

    Entries that come from here are shared and must not be changed.
    """

    def __init__(self, registry: Bound | Callable[[], Bound], *, idle: float = IDLE) -> None:
        self._registry = registry
        self._idle = idle
        self._runtime: Runtime | None = None
        self._sweeper: Timer | None = None
        self._ns: RegistryNext[NetworkService] | None = None
        self._nse: RegistryNext[NetworkServiceEndpoint] | None = None
        self._follows: dict[tuple[str, bytes], Follow[Any]] = {}

    async def start(self, runtime: Runtime) -> None:
        bound = self._registry if isinstance(self._registry, Bound) else self._registry()
        self._ns, self._nse = registry_of(bound, NS), registry_of(bound, NSE)
        self._runtime = runtime
        self._sweeper = runtime.after(self._idle, self._sweep)

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for follow in self._follows.values():
            follow.close()
        self._follows.clear()
        self._runtime = None

    async def service(self, call: Call, name: str, *, plain: bool = False) -> NetworkService | None:
        """The service of that name; None if there is none. Unavailable while nobody can tell.

        `plain`: asks the registry, whatever is known here.
        """
        query, key = _service_query(name) if len(name) <= _USUAL else _service_query.__wrapped__(name)
        return await self._look(call, NS, query, lambda found: _named(found, name), key, plain=plain)

    async def endpoint(self, call: Call, name: str, service: str = "") -> NetworkServiceEndpoint | None:
        """The endpoint of that name; None if there is none. Unavailable while nobody can tell.

        Where all endpoints of `service` are followed already, one of them costs nothing.
        """
        if service:
            key_of = _key_of_service if len(service) <= _USUAL else _key_of_service.__wrapped__
            follow = self._follows.get(key_of(service))
            if follow is not None and (known := follow.entries.get(name)) is not None:
                follow.used = call.runtime.clock.now()
                found: NetworkServiceEndpoint = known
                return found
        query = NetworkServiceEndpoint(name=name)
        return await self._look(call, NSE, query, lambda found: _named(found, name))

    async def endpoints(
        self,
        call: Call,
        query: NetworkServiceEndpoint,
        pick: Callable[[Sequence[NetworkServiceEndpoint]], T | None],
        *,
        plain: bool = False,
    ) -> T | None:
        """What `pick` makes of the endpoints that match `query`; None if it makes nothing even of a plain Find's.

        `pick` may be called several times. `plain`: asks the registry, whatever is known here. Unavailable while nobody
        can tell.
        """
        wanted = tuple(query.network_service_names)

        def meant(found: Sequence[NetworkServiceEndpoint]) -> T | None:
            # Registries before 1.11 also answer with services whose names only contain the one asked for.
            return pick([one for one in found if all(name in one.network_service_names for name in wanted)])

        return await self._look(call, NSE, query, meant, plain=plain)

    def registered(self, kind: Kind[E], entry: E, known_as: E | None = None) -> None:
        """An entry has just been registered; look-ups know it from now on.

        `known_as` is the entry as the registry has it, where look-ups are to see another.
        """
        matches = matcher_of(kind).matches
        for (label, _), follow in list(self._follows.items()):
            if label != kind.label:
                continue
            if matches(follow.query, known_as or entry):
                follow.put(kind.copy(entry))
            else:
                follow.drop(entry.name)

    def unregistered(self, kind: Kind[E], entry: E) -> None:
        """An entry has just been taken out; no look-up gives it from now on. One of its name at another address is
        another's, which stands."""
        url = getattr(entry, "url", "")
        for (label, _), follow in list(self._follows.items()):
            if label == kind.label and getattr(follow.entries.get(entry.name), "url", "") == url:
                follow.drop(entry.name)

    def age(self, query: NetworkService | NetworkServiceEndpoint) -> float | None:
        """Seconds since what is held for `query` was known to be right (0: it is now); None if it is not followed."""
        kind: Kind[Any] = NS if isinstance(query, NetworkService) else NSE
        follow = self._follows.get(_key(kind, query))
        return None if follow is None else follow.age()

    def __len__(self) -> int:
        return len(self._follows)

    def _at(self, kind: Kind[E]) -> tuple[Runtime, RegistryNext[E]]:
        """What to look in; ProgrammingError or Unavailable where there is nothing."""
        if self._runtime is None:
            raise ProgrammingError(
                "the candidate cache does not run", hint="it must be held by an element of a role that is served"
            )
        registry: Any = self._ns if kind.label == NS.label else self._nse
        if registry is None:
            raise Unavailable(f"no registry of {kind.label}s to look in", hint="check the registry's address")
        return self._runtime, registry

    async def _look(
        self,
        call: Call,
        kind: Kind[E],
        query: E,
        pick: Callable[[Sequence[E]], T | None],
        key: tuple[str, bytes] | None = None,
        *,
        plain: bool = False,
    ) -> T | None:
        runtime, registry = self._at(kind)
        key = key or _key(kind, query)
        now, wall = runtime.clock.now, runtime.clock.wall
        follow: Follow[E] | None = self._follows.get(key)
        if follow is not None:
            follow.used = now()
            picked = None if plain else pick(_valid(follow.entries.values(), wall()))
            if picked is not None:
                return picked
        until = now() + min(call.remaining() / 2, MOST_PATIENT)
        last: Exception | None = None
        while True:
            with anyio.move_on_after(max(until - now(), 0.0)):
                try:
                    entries = await find_all(registry, Call(call.runtime, deadline=until), Query(kind.copy(query)))
                except AWAY as error:
                    last = error
                else:
                    # Only what exists is followed: names that somebody made up cost no streams.
                    if entries and key not in self._follows and self._runtime is runtime:
                        self._follows[key] = Follow(runtime, registry, kind.copy(query), entries)
                    elif plain and (follow := self._follows.get(key)) is not None:
                        for entry in entries:
                            follow.put(entry)
                    return pick(_valid(entries, wall()))
                # Nobody can refresh a registration now: what has expired may live on.
                follow = self._follows.get(key)
                picked = pick(tuple(follow.entries.values())) if follow is not None else None
                if picked is not None:
                    return picked
                await self._wait(follow)
            if now() >= until:
                follow = self._follows.get(key)
                picked = pick(tuple(follow.entries.values())) if follow is not None else None
                if picked is not None:
                    return picked
                raise Unavailable(
                    f"the registry cannot be reached ({last or 'it does not answer'})",
                    hint="check that the registry runs; trying again may help",
                ) from last

    async def _wait(self, follow: Follow[Any] | None) -> None:
        """Before the next attempt: until something changes, or a while."""
        if follow is None:
            await anyio.sleep(RETRY_PAUSE)
            return
        with anyio.move_on_after(RETRY_PAUSE):
            await follow.change()

    def _sweep(self) -> None:
        runtime = self._runtime
        if runtime is None:
            return
        now = runtime.clock.now()
        for key, follow in list(self._follows.items()):
            # While the registry is away what is known is all there is.
            if now - follow.used >= self._idle and follow.standing is not Standing.BROKEN:
                follow.close()
                del self._follows[key]
        self._sweeper = runtime.after(self._idle / 2, self._sweep)


class UpdateCandidates(RegistryElement[E]):
    """Tell `candidates` of what is registered and unregistered here, before the caller learns that it is done.

    `manager`: the URL, or a function that tells it, under which the registry knows endpoints that register here; empty
    where it knows them under their own.
    """

    needs = (Begin,)

    def __init__(self, kind: Kind[E], candidates: Candidates, *, manager: str | Callable[[], str] = "") -> None:
        self._kind = kind
        self._candidates = candidates
        self.manager = manager

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        registered = await next.register(call, entry)
        known_as = self._kind.copy(registered)
        manager = self.manager if isinstance(self.manager, str) else self.manager()
        if isinstance(known_as, NetworkServiceEndpoint) and manager:
            known_as.url = manager
        self._candidates.registered(self._kind, registered, known_as)
        return registered

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        gone = self._kind.copy(entry)
        await next.unregister(call, entry)
        self._candidates.unregistered(self._kind, gone)


def _key(kind: Kind[Any], query: NetworkService | NetworkServiceEndpoint) -> tuple[str, bytes]:
    return kind.label, query.SerializeToString(deterministic=True)


_USUAL = 256
"""Characters of names whose queries are kept: nobody fills the caches with enormous ones."""


@functools.lru_cache(maxsize=1024)
def _service_query(name: str) -> tuple[NetworkService, tuple[str, bytes]]:
    """What to look for, and its key; shared, so not to be changed."""
    query = NetworkService(name=name)
    return query, _key(NS, query)


@functools.lru_cache(maxsize=1024)
def _key_of_service(service: str) -> tuple[str, bytes]:
    return _key(NSE, NetworkServiceEndpoint(network_service_names=[service]))


def _valid(entries: Iterable[E], now: float) -> tuple[E, ...]:
    return tuple(one for one in entries if not (isinstance(one, NetworkServiceEndpoint) and has_expired(one, now)))


def _named(found: Sequence[E], name: str) -> E | None:
    # Registries before 1.11 answer with names that only contain the one asked for.
    return next((entry for entry in found if entry.name == name), None)
