# SPDX-License-Identifier: Apache-2.0
"""Entries in memory, and who watches them.

`Memory` is the element, `MemoryStore` the table: entries as bytes, indexed by name, by service and by payload. An entry
that a query means has every index key of the query; only then is the whole query matched. A `Watcher` is a queue of
changes that never blocks what changes something: a reader that keeps up sees every change in order; for one that lags,
changes of one name become one, so that the queue never holds much more than there are entries. Nothing is lost
between the snapshot that opens a watch and the changes after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, final

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NS, NSE, Call, E, Found, Kind, Query, RegistryElement, RegistryNext, Runtime, Service
from nsm_sdk.errors import InvalidRequest, ProgrammingError, Unavailable
from nsm_sdk.registry.matching import endpoint_matches, service_matches

IndexKey: TypeAlias = "tuple[str, str | int]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher(Generic[E]):
    """How one kind of entries is indexed and matched."""

    index_keys: Callable[[E], tuple[IndexKey, ...]]
    """Of an entry, without its name; also of a query."""
    matches: Callable[[E, E], bool]
    """(query, entry) -> whether it is meant."""


def _service_keys(service: NetworkService) -> tuple[IndexKey, ...]:
    return (("payload", service.payload),) if service.payload else ()


def _endpoint_keys(endpoint: NetworkServiceEndpoint) -> tuple[IndexKey, ...]:
    found: list[IndexKey] = [("service", name) for name in dict.fromkeys(endpoint.network_service_names)]
    if endpoint.network_service_labels:
        found.extend(("labels", name) for name in endpoint.network_service_labels)
    return tuple(found)


_NS = Matcher(index_keys=_service_keys, matches=service_matches)
_NSE = Matcher(index_keys=_endpoint_keys, matches=endpoint_matches)


def matcher_of(kind: Kind[E]) -> Matcher[E]:
    """The matcher for a kind of entries."""
    matchers: dict[str, Any] = {NS.label: _NS, NSE.label: _NSE}
    try:
        found: Matcher[E] = matchers[kind.label]
    except KeyError:
        raise ProgrammingError(f"no way to match {kind.label!r}", hint="a kind is NS or NSE") from None
    return found


MAX_UNREAD = 256
"""Changes that a watcher may have unread before they are coalesced."""

ANYTHING: IndexKey = ("", "")
"""The key of queries that ask for nothing that is indexed."""


@final
@dataclass(frozen=True, slots=True)
class Change:
    """What one group of watchers gets."""

    name: str
    data: bytes
    deleted: bool
    new: bool
    """Whether these watchers have not seen the entry before."""


def coalesced(changes: Iterable[Change]) -> list[Change]:
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
        self._limit = MAX_UNREAD
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False

    def tell(self, change: Change) -> None:
        """Add a change; never waits."""
        self._queue.append(change)
        if self._waiting is not None:
            self._wake()
        elif len(self._queue) > self._limit:
            self._queue = deque(coalesced(self._queue))
            self._limit = max(MAX_UNREAD, 2 * len(self._queue))

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
class WatcherGroup(Generic[E]):
    """Watchers with the same query: it is matched once for all of them."""

    __slots__ = ("members", "query")

    def __init__(self, query: E) -> None:
        self.query = query
        self.members: dict[Watcher, None] = {}


class WatcherGroups(Generic[E]):
    """All watchers of a store; `len()` counts them."""

    def __init__(self) -> None:
        self._groups: dict[IndexKey, dict[bytes, WatcherGroup[E]]] = {}
        self._count = 0

    def join(self, index_key: IndexKey, query: E) -> Watcher:
        """A new watcher of what has `index_key` and matches `query`."""
        groups = self._groups.setdefault(index_key, {})
        key = query.SerializeToString(deterministic=True)
        group = groups.get(key)
        if group is None:
            group = groups[key] = WatcherGroup(query)
        watcher = Watcher()
        group.members[watcher] = None
        self._count += 1
        return watcher

    def leave(self, index_key: IndexKey, query: E, watcher: Watcher) -> None:
        """Forget a watcher; harmless when it is gone already."""
        groups = self._groups.get(index_key, {})
        key = query.SerializeToString(deterministic=True)
        group = groups.get(key)
        if group is None or watcher not in group.members:
            return
        del group.members[watcher]
        self._count -= 1
        if not group.members:
            del groups[key]
            if not groups:
                del self._groups[index_key]

    def concerned(self, index_keys: Iterable[IndexKey]) -> list[WatcherGroup[E]]:
        """Groups that watch one of `index_keys`, each once."""
        return [group for index_key in index_keys for group in self._groups.get(index_key, {}).values()]

    def end(self) -> None:
        """End every stream."""
        for groups in self._groups.values():
            for group in groups.values():
                for watcher in group.members:
                    watcher.end()

    def __len__(self) -> int:
        return self._count


SCAN_CHUNK = 256
"""Entries that are looked at at once; then other tasks run."""


class _Item:
    __slots__ = ("data", "index_keys")

    def __init__(self, data: bytes, index_keys: tuple[IndexKey, ...]) -> None:
        self.data = data
        self.index_keys = index_keys


class MemoryStore(Service, Generic[E]):
    """A table of entries by name; the last one to register a name wins. `len()` counts the entries."""

    def __init__(self, kind: Kind[E]) -> None:
        self._kind = kind
        self._matcher = matcher_of(kind)
        self._items: dict[str, _Item] = {}
        self._index: dict[IndexKey, dict[str, None]] = {}
        self._watching: WatcherGroups[E] = WatcherGroups()
        self._stopped = False

    async def start(self, runtime: Runtime) -> None:
        """A store begins empty each time it is served."""
        self._items.clear()
        self._index.clear()
        self._stopped = False

    async def stop(self) -> None:
        self._stopped = True
        self._watching.end()

    def put(self, entry: E) -> None:
        """Add or replace; later changes of `entry` are not seen.

        InvalidRequest for an empty name, Unavailable once the store has stopped: it would not be found.
        """
        if self._stopped:
            raise _stopping()
        name = entry.name
        if not name:
            raise InvalidRequest(f"the {self._kind.label} to register has no name", hint="set the field `name`")
        index_keys = self._matcher.index_keys(entry)
        item = _Item(entry.SerializeToString(), index_keys)
        old = self._items.get(name)
        self._items[name] = item
        if old is None:
            self._add(name, index_keys)
        elif old.index_keys != index_keys:
            self._drop(name, old.index_keys)
            self._add(name, index_keys)
        if len(self._watching):
            self._tell(name, old, item, entry)

    def remove(self, name: str) -> bool:
        """Remove by name; False when there was none."""
        old = self._items.pop(name, None)
        if old is None:
            return False
        self._drop(name, old.index_keys)
        if len(self._watching):
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
        index holds, and the caller must be able to let other tasks run."""
        matches = self._matcher.matches
        for name in self._possible(query):
            item = self._items.get(name)
            if item is not None:
                entry = self._message(item.data)
                yield entry if matches(query, entry) else None

    async def watch(self, query: E) -> AsyncGenerator[Found[E], None]:
        """What matches now, then every change, until closed: an entry that no longer matches comes as deleted.

        Unavailable when the store stops.
        """
        if self._stopped:
            raise _stopping()
        query = self._kind.copy(query)
        index_key = self._index_key(query)
        # No await between the two: what is registered from here on is a change.
        present = [item.data for name in self._possible(query) if (item := self._items.get(name)) is not None]
        watcher = self._watching.join(index_key, query)
        try:
            while present:
                if not len(present) % SCAN_CHUNK:
                    await asyncio.sleep(0)
                entry = self._message(present.pop())
                if self._matcher.matches(query, entry):
                    yield Found(entry)
            while (change := await watcher.next()) is not None:
                yield Found(self._message(change.data), change.deleted)
            raise _stopping()
        finally:
            self._watching.leave(index_key, query, watcher)

    @property
    def watchers(self) -> int:
        """How many watches are open."""
        return len(self._watching)

    def _message(self, data: bytes) -> E:
        message: Any = self._kind.message.FromString(data)
        entry: E = message
        return entry

    def _possible(self, query: E) -> list[str]:
        """Names of all entries that may match: the shortest list that an index gives."""
        if query.name:
            return [query.name]
        nothing: dict[str, None] = {}
        lists: list[dict[str, None]] = [
            self._index.get(index_key, nothing) for index_key in self._matcher.index_keys(query)
        ]
        if not lists:
            return list(self._items)
        shortest = min(lists, key=len)
        return list(shortest)

    def _index_key(self, query: E) -> IndexKey:
        if query.name:
            return ("name", query.name)
        index_keys = self._matcher.index_keys(query)
        return index_keys[0] if index_keys else ANYTHING

    def _add(self, name: str, index_keys: tuple[IndexKey, ...]) -> None:
        for index_key in index_keys:
            names = self._index.get(index_key)
            if names is None:
                self._index[index_key] = {name: None}
            else:
                names[name] = None

    def _drop(self, name: str, index_keys: tuple[IndexKey, ...]) -> None:
        for index_key in index_keys:
            names = self._index[index_key]
            del names[name]
            if not names:
                del self._index[index_key]

    def _tell(self, name: str, old: _Item | None, new: _Item | None, entry: E | None) -> None:
        """Tell those who see the entry now that it changed, and those who only saw the old one that it is gone."""
        index_keys = dict.fromkeys(
            (("name", name), ANYTHING, *(old.index_keys if old else ()), *(new.index_keys if new else ())),
        )
        before: E | None = None
        matches = self._matcher.matches
        for group in self._watching.concerned(index_keys):
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


class Memory(RegistryElement[E]):
    """Keeps what passes in a store of its own, or in one that others share; finds and watches are answered from there.

    Stands last in a registry, or in a manager without one.

    Several kinds of chains may hold the same store; a store is served by one role at a time.
    """

    def __init__(self, kind: Kind[E], store: MemoryStore[E] | None = None) -> None:
        self._kind = kind
        self.store: MemoryStore[E] = MemoryStore(kind) if store is None else store

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        if not entry.name:
            raise InvalidRequest(f"the {self._kind.label} to register has no name", hint="set the field `name`")
        registered = await next.register(call, entry)
        self.store.put(registered)
        return registered

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        self.store.remove(entry.name)
        await next.unregister(call, entry)

    async def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        """Own entries only: what stands below a store registers, but is not asked."""
        if not query.watch:
            for count, entry in enumerate(self.store.scan(query.entry), 1):
                if entry is not None:
                    yield Found(entry)
                if not count % SCAN_CHUNK:
                    await asyncio.sleep(0)
            return
        stream = self.store.watch(query.entry)
        try:
            async for found in stream:
                yield found
        finally:
            await stream.aclose()
