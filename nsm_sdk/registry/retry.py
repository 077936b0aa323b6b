# SPDX-License-Identifier: Apache-2.0
"""Try again.

Does:  repeats what failed below, with growing pauses, until it succeeds or the caller's time is over; each try has a
       time of its own. What cannot get better is not repeated.
Place: below `Begin`, in whoever registers or looks up.
State: none.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import anyio

from nsm_sdk.core import Call, E, Found, Kind, Query, RegistryElement, RegistryNext, narrowed
from nsm_sdk.errors import InvalidRequest, NsmError, ProgrammingError, Unimplemented, pushback

logger = logging.getLogger("nsm_sdk.registry")
T = TypeVar("T")

FINAL = (InvalidRequest, ProgrammingError, Unimplemented)
"""Errors that another try cannot change."""


class Retry(RegistryElement[E]):
    """`interval`: the first pause in seconds, `longest`: the last one; they double. `try_timeout`: seconds of a try."""

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
            except FINAL:
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
            except FINAL:
                raise
            except (NsmError, TimeoutError) as error:
                await self._pause(call, tries, what, error)
            tries += 1
            # A failed try may have left its own metadata.
            call.onward.clear()
            call.onward.update(onward)

    async def _pause(self, call: Call, tries: int, what: str, error: Exception) -> None:
        """Wait before the next try; raises `error` when the caller's time would be over."""
        pause = min(self.interval * 2 ** min(tries, 16), self.longest) * call.runtime.dice.uniform(0.8, 1.0)
        pause = max(pause, pushback(error))
        if call.remaining() <= pause:
            raise error
        logger.info("%s: %s failed, again in %.1f s: %s", call.runtime.name, what, pause, error)
        await anyio.sleep(pause)
