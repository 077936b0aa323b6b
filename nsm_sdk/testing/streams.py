# SPDX-License-Identifier: Apache-2.0
"""Doubles of the registry family and the watch family.

Does:  `RegistryProbe` and `RegistryFailTimes` record and fail; `Entries` is a registry of a few entries; `Feed` is a
       monitor whose events the test sends.
Place: below the element under test; bind with `bind_registry` or `bind_watch`.
State: what they have seen, and what the test put in; open streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic

from nsm_sdk.api import ConnectionEvent, Selector
from nsm_sdk.core import (
    WATCH_END,
    Call,
    Chain,
    E,
    Found,
    Observer,
    Query,
    RegistryElement,
    RegistryNext,
    WatchElement,
    WatchNext,
    registry_end,
)
from nsm_sdk.testing.doubles import Failure, Seen, checked_verb, copied, made, record


def bind_registry(*elements: RegistryElement[E], observe: Observer | None = None) -> RegistryNext[E]:
    """The elements, checked and bound; nothing is registered or found below them."""
    chain: Chain[RegistryNext[E]] = Chain("rig", *elements)
    chain.check()
    return chain.bind(registry_end(), observe)


def bind_watch(*elements: WatchElement, observe: Observer | None = None) -> WatchNext:
    """The elements, checked and bound; a stream that reaches the end ends."""
    chain: Chain[WatchNext] = Chain("rig", *elements)
    chain.check()
    return chain.bind(WATCH_END, observe)


class RegistryProbe(RegistryElement[E]):
    """Records what passes and changes nothing; `open` counts finds that have not ended."""

    def __init__(self) -> None:
        self._seen = Seen()
        self._open = 0

    @property
    def seen(self) -> Seen:
        """Every call that passed."""
        return self._seen

    @property
    def open(self) -> int:
        """Finds that have begun and not ended."""
        return self._open

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        return await record(self._seen.note("register", call, entry), next.register(call, entry))

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        await record(self._seen.note("unregister", call, entry), next.unregister(call, entry))

    async def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        passed = self._seen.note("find", call, Query(copied(query.entry), query.watch))
        passed.answer = []
        self._open += 1
        try:
            async with aclosing(next.find(call, query)) as stream:
                async for found in stream:
                    passed.answer.append(Found(copied(found.entry), found.deleted))
                    yield found
        except Exception as error:
            passed.error = error
            raise
        finally:
            self._open -= 1


class RegistryFailTimes(RegistryProbe[E]):
    """Raises `error` in the first `times` calls of `verb` without going below; later calls pass."""

    def __init__(self, times: int, error: Failure, *, verb: str = "register") -> None:
        super().__init__()
        self.times = times
        self.verb = checked_verb(verb, self.verbs)
        self._error = error

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        return await super().register(call, entry, self._failing(next))

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        await super().unregister(call, entry, self._failing(next))

    def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        return super().find(call, query, self._failing(next))

    def _failing(self, next: RegistryNext[E]) -> RegistryNext[E]:
        async def register(call: Call, entry: E) -> E:
            self._strike("register")
            return await next.register(call, entry)

        async def unregister(call: Call, entry: E) -> None:
            self._strike("unregister")
            await next.unregister(call, entry)

        async def find(call: Call, query: Query[E]) -> AsyncGenerator[Found[E], None]:
            self._strike("find")
            async with aclosing(next.find(call, query)) as stream:
                async for found in stream:
                    yield found

        return RegistryNext(register, unregister, find)

    def _strike(self, verb: str) -> None:
        if verb == self.verb and len(self._seen.of(verb)) <= self.times:
            raise made(self._error)


class _Streams(Generic[E]):
    """Queues of open streams; None ends a stream, an exception breaks it."""

    def __init__(self) -> None:
        self.queues: list[asyncio.Queue[Any]] = []

    def put(self, item: Any) -> None:
        for queue in self.queues:
            queue.put_nowait(item)

    async def read(self, queue: asyncio.Queue[Any]) -> AsyncGenerator[Any, None]:
        self.queues.append(queue)
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.queues.remove(queue)


class Entries(RegistryElement[E]):
    """Ends the chain: a registry in a dictionary, by name. Matching is `matches`, by default an equal or empty name."""

    last = True

    def __init__(self, *entries: E, matches: Callable[[E, E], bool] | None = None) -> None:
        self._entries: dict[str, E] = {entry.name: copied(entry) for entry in entries}
        self._matches = matches or (lambda wanted, entry: wanted.name in ("", entry.name))
        self._streams = _Streams[E]()

    @property
    def names(self) -> list[str]:
        """Names of what is registered."""
        return sorted(self._entries)

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._streams.queues)

    def put(self, entry: E) -> None:
        """Register, and tell who watches."""
        self._entries[entry.name] = copied(entry)
        self._streams.put(Found(copied(entry)))

    def remove(self, name: str) -> None:
        """Unregister, and tell who watches; an unknown name is no error."""
        gone = self._entries.pop(name, None)
        if gone is not None:
            self._streams.put(Found(gone, deleted=True))

    def break_watches(self, error: BaseException) -> None:
        """All open watches fail with `error`."""
        self._streams.put(error)

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        self.put(entry)
        return entry

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        self.remove(entry.name)

    async def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for entry in self._entries.values():
            queue.put_nowait(Found(copied(entry)))
        if not query.watch:
            queue.put_nowait(None)
        async with aclosing(self._streams.read(queue)) as stream:
            async for found in stream:
                if self._matches(query.entry, found.entry):
                    yield Found(copied(found.entry), found.deleted)


class Feed(WatchElement):
    """Ends a monitor chain: each stream gets `initial`, then what the test sends, until it ends or breaks it."""

    last = True

    def __init__(self, *initial: ConnectionEvent) -> None:
        self._initial = initial
        self._seen = Seen()
        self._streams = _Streams[Any]()

    @property
    def seen(self) -> Seen:
        """Every watch that was opened."""
        return self._seen

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._streams.queues)

    def send(self, event: ConnectionEvent) -> None:
        """Send a copy to every open stream."""
        self._streams.put(copied(event))

    def end(self) -> None:
        """End every open stream."""
        self._streams.put(None)

    def fail(self, error: BaseException) -> None:
        """Break every open stream."""
        self._streams.put(error)

    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        self._seen.note("watch", call, selector)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for event in self._initial:
            queue.put_nowait(copied(event))
        async with aclosing(self._streams.read(queue)) as stream:
            async for event in stream:
                yield event
