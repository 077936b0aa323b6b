# SPDX-License-Identifier: Apache-2.0
"""Who watches a store, and what each has not read yet.

Does:  a `Watcher` is a queue of changes that never blocks whoever changes something: a reader that keeps up sees every
       change in order; for one that lags, changes of one name melt into the last, so that the queue never holds much
       more than there are entries. `Audience` finds the watchers that a change concerns without asking all of them.
Place: inside the store.
State: queues; groups of watchers with the same query.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, final

from nsm_sdk.core import E
from nsm_sdk.registry.facets import Facet

LAG = 256
"""Changes that a watcher may have unread before they are melted together."""

ANYTHING: Facet = ("", "")
"""Where those watch who ask for nothing that is indexed."""


@final
@dataclass(frozen=True, slots=True)
class Change:
    """What one group of watchers is told."""

    name: str
    data: bytes
    deleted: bool
    new: bool
    """Whether these watchers have not been told of the entry before."""


def melted(changes: Iterable[Change]) -> list[Change]:
    """The same changes with one left per name; what came and went unseen is left out."""
    kept: dict[str, Change] = {}
    for change in changes:
        before = kept.pop(change.name, None)
        unseen = change.new if before is None else before.new
        if change.deleted and unseen:
            continue
        kept[change.name] = change if change.new is unseen else Change(change.name, change.data, change.deleted, unseen)
    return list(kept.values())


class Watcher:
    """One reader's queue."""

    __slots__ = ("_ended", "_limit", "_queue", "_waiting")

    def __init__(self) -> None:
        self._queue: deque[Change] = deque()
        self._limit = LAG
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False

    def tell(self, change: Change) -> None:
        """Add a change; never waits."""
        self._queue.append(change)
        if self._waiting is not None:
            self._wake()
        elif len(self._queue) > self._limit:
            self._queue = deque(melted(self._queue))
            self._limit = max(LAG, 2 * len(self._queue))

    def end(self) -> None:
        """No more changes: the reader's stream ends when it has read what is there."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def next(self) -> Change | None:
        """The oldest change that was not read yet; None at the end."""
        while not self._queue:
            if self._ended:
                return None
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._queue.popleft()

    def __len__(self) -> int:
        return len(self._queue)


@final
class Group(Generic[E]):
    """Watchers with the same query: it is matched once for all of them."""

    __slots__ = ("members", "query")

    def __init__(self, query: E) -> None:
        self.query = query
        self.members: dict[Watcher, None] = {}


class Audience(Generic[E]):
    """All watchers of a store; `len()` counts them."""

    def __init__(self) -> None:
        self._groups: dict[Facet, dict[bytes, Group[E]]] = {}
        self._count = 0

    def join(self, facet: Facet, query: E) -> Watcher:
        """A new watcher of what has `facet` and matches `query`."""
        groups = self._groups.setdefault(facet, {})
        key = query.SerializeToString(deterministic=True)
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(query)
        watcher = Watcher()
        group.members[watcher] = None
        self._count += 1
        return watcher

    def leave(self, facet: Facet, query: E, watcher: Watcher) -> None:
        """Forget a watcher; harmless when it is gone already."""
        groups = self._groups.get(facet, {})
        key = query.SerializeToString(deterministic=True)
        group = groups.get(key)
        if group is None or watcher not in group.members:
            return
        del group.members[watcher]
        self._count -= 1
        if not group.members:
            del groups[key]
            if not groups:
                del self._groups[facet]

    def concerned(self, facets: Iterable[Facet]) -> list[Group[E]]:
        """Groups that watch one of `facets`, each once."""
        return [group for facet in facets for group in self._groups.get(facet, {}).values()]

    def end(self) -> None:
        """End every stream."""
        for groups in self._groups.values():
            for group in groups.values():
                for watcher in group.members:
                    watcher.end()

    def __len__(self) -> int:
        return self._count
