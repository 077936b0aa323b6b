# SPDX-License-Identifier: Apache-2.0
"""One watched query.

Does:  keeps what a Find stream tells, reopens the stream with growing pauses when it breaks, and finds out what was
       lost meanwhile: a watch marks no end of its snapshot, so entries that the new stream has not told of are asked
       for by plain Finds until each is either told of or gone.
Place: inside the candidate cache.
State: the entries, and whether the stream can be trusted now.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import aclosing
from enum import StrEnum
from typing import Generic

import anyio

from nsm_sdk.core import Call, E, Query, RegistryNext, Runtime, find_all
from nsm_sdk.errors import ConnectionRetired, NsmError

logger = logging.getLogger("nsm_sdk.registry")

FIRST_PAUSE = 0.05
LAST_PAUSE = 2.0
"""Seconds between attempts to open a stream, doubling from the first to the last."""
RECHECK = 0.5
"""Seconds until entries that are only in an older snapshot are asked for again; doubling."""
LASTING = 5.0
"""Seconds that a stream must have lived for the pauses to begin anew."""
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
            if self._runtime.clock.now() - began >= LASTING:
                failures = 0
            self._stand(standing)
            pause = min(FIRST_PAUSE * 2 ** min(failures, 16), LAST_PAUSE)
            await anyio.sleep(pause * self._runtime.dice.uniform(0.5, 1.0))
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
        pause = RECHECK
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
