# SPDX-License-Identifier: Apache-2.0
"""Entries in memory.

Does:  `MemoryStore` holds entries as bytes, indexed by name, by service and by payload, and tells watchers what
       changes; nothing is lost between the snapshot that opens a watch and the changes after it.
Place: held by `Memory`.
State: the entries and the watchers of one store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Generic

from nsm_sdk.core import E, Found, Kind, Runtime, Service
from nsm_sdk.errors import InvalidRequest, Unavailable
from nsm_sdk.registry.facets import Facet, matcher_of
from nsm_sdk.registry.watchers import ANYTHING, Audience, Change

BREATH = 256
"""Entries that are looked at in one go; then others have their turn."""


class _Item:
    __slots__ = ("data", "facets")

    def __init__(self, data: bytes, facets: tuple[Facet, ...]) -> None:
        self.data = data
        self.facets = facets


class MemoryStore(Service, Generic[E]):
    """A table of entries by name; the last one to register a name wins. `len()` counts the entries."""

    def __init__(self, kind: Kind[E]) -> None:
        self._kind = kind
        self._matcher = matcher_of(kind)
        self._items: dict[str, _Item] = {}
        self._index: dict[Facet, dict[str, None]] = {}
        self._audience: Audience[E] = Audience()
        self._stopped = False

    async def start(self, runtime: Runtime) -> None:
        """A store begins empty each time it is served."""
        self._items.clear()
        self._index.clear()
        self._stopped = False

    async def stop(self) -> None:
        self._stopped = True
        self._audience.end()

    def put(self, entry: E) -> None:
        """Add or replace; later changes of `entry` are not seen.

        InvalidRequest for an empty name, Unavailable once the store has stopped: nobody would find it.
        """
        if self._stopped:
            raise _stopping()
        name = entry.name
        if not name:
            raise InvalidRequest(f"the {self._kind.label} to register has no name", hint="set the field `name`")
        facets = self._matcher.facets(entry)
        item = _Item(entry.SerializeToString(), facets)
        old = self._items.get(name)
        self._items[name] = item
        if old is None:
            self._add(name, facets)
        elif old.facets != facets:
            self._drop(name, old.facets)
            self._add(name, facets)
        if len(self._audience):
            self._tell(name, old, item, entry)

    def remove(self, name: str) -> bool:
        """Remove by name; False when there was none."""
        old = self._items.pop(name, None)
        if old is None:
            return False
        self._drop(name, old.facets)
        if len(self._audience):
            self._tell(name, old, None, None)
        return True

    def get(self, name: str) -> E | None:
        """A copy of the entry of that name."""
        item = self._items.get(name)
        return None if item is None else self._message(item.data)

    def find(self, query: E) -> Iterator[E]:
        """Copies of the entries that match now; looks only at those that share what the query asks for."""
        return (entry for entry in self.scan(query) if entry is not None)

    def scan(self, query: E) -> Iterator[E | None]:
        """As `find`, with None for each entry that had to be looked at and does not match: a query may ask for what no
        index tells, and whoever asks must be able to let others have their turn."""
        matches = self._matcher.matches
        for name in self._suspects(query):
            item = self._items.get(name)
            if item is not None:
                entry = self._message(item.data)
                yield entry if matches(query, entry) else None

    async def watch(self, query: E) -> AsyncGenerator[Found[E], None]:
        """What matches now, then every change, until closed: an entry that stops to match is told as deleted.

        Unavailable when the store stops.
        """
        if self._stopped:
            raise _stopping()
        query = self._kind.copy(query)
        facet = self._facet(query)
        # No await between the two: what is registered from here on is a change.
        present = [item.data for name in self._suspects(query) if (item := self._items.get(name)) is not None]
        watcher = self._audience.join(facet, query)
        try:
            while present:
                if not len(present) % BREATH:
                    await asyncio.sleep(0)
                entry = self._message(present.pop())
                if self._matcher.matches(query, entry):
                    yield Found(entry)
            while (change := await watcher.next()) is not None:
                yield Found(self._message(change.data), change.deleted)
            raise _stopping()
        finally:
            self._audience.leave(facet, query, watcher)

    @property
    def watchers(self) -> int:
        """How many watches are open."""
        return len(self._audience)

    def _message(self, data: bytes) -> E:
        message: Any = self._kind.message.FromString(data)
        entry: E = message
        return entry

    def _suspects(self, query: E) -> list[str]:
        """Names of all entries that may match: the shortest list that an index gives."""
        if query.name:
            return [query.name]
        nothing: dict[str, None] = {}
        lists: list[dict[str, None]] = [self._index.get(facet, nothing) for facet in self._matcher.facets(query)]
        if not lists:
            return list(self._items)
        shortest = min(lists, key=len)
        return list(shortest)

    def _facet(self, query: E) -> Facet:
        if query.name:
            return ("name", query.name)
        facets = self._matcher.facets(query)
        return facets[0] if facets else ANYTHING

    def _add(self, name: str, facets: tuple[Facet, ...]) -> None:
        for facet in facets:
            names = self._index.get(facet)
            if names is None:
                self._index[facet] = {name: None}
            else:
                names[name] = None

    def _drop(self, name: str, facets: tuple[Facet, ...]) -> None:
        for facet in facets:
            names = self._index[facet]
            del names[name]
            if not names:
                del self._index[facet]

    def _tell(self, name: str, old: _Item | None, new: _Item | None, entry: E | None) -> None:
        """Tell those who see the entry now that it changed, and those who only saw the old one that it is gone."""
        facets = dict.fromkeys(
            (("name", name), ANYTHING, *(old.facets if old else ()), *(new.facets if new else ())),
        )
        before: E | None = None
        matches = self._matcher.matches
        for group in self._audience.concerned(facets):
            if old is not None and before is None:
                before = self._message(old.data)
            knew = before is not None and matches(group.query, before)
            if entry is not None and new is not None and matches(group.query, entry):
                change = Change(name, new.data, False, not knew)
            elif knew and old is not None:
                change = Change(name, old.data, True, False)
            else:
                continue
            for watcher in group.members:
                watcher.tell(change)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items


def _stopping() -> Unavailable:
    return Unavailable("the registry is shutting down", hint="register and look again when it is back")
