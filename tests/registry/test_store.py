# SPDX-License-Identifier: Apache-2.0
"""The store: find, watch, copies, watchers that lag; and a machine against a naive model.

Does:  drives `MemoryStore` alone.
Place: tests of `nsm_sdk.registry.store` and `watchers`.
State: none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NS, NSE, Call, Chain, Found, Kind, Query, Role, find_all, find_one, registry_end
from nsm_sdk.errors import InvalidRequest, ProgrammingError
from nsm_sdk.registry import Memory, MemoryStore, endpoint_matches
from nsm_sdk.registry.store import MAX_UNREAD, Change, Watcher, coalesced, matcher_of
from nsm_sdk.testing import settled


def nse(name: str, *services: str, url: str = "", **labels: str) -> NetworkServiceEndpoint:
    entry = NetworkServiceEndpoint(name=name, network_service_names=services, url=url)
    for service in services if labels else ():
        entry.network_service_labels[service].labels.update(labels)
    return entry


def names(found: Any) -> list[str]:
    return sorted(entry.name for entry in found)


class Reader:
    """Reads a watch in a task and notes what it is told."""

    def __init__(self, stream: AsyncGenerator[Found[Any], None]) -> None:
        self.told: list[tuple[str, bool]] = []
        self.entries: list[Any] = []
        self._stream = stream
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for found in self._stream:
                self.told.append((found.entry.name, found.deleted))
                self.entries.append(found.entry)
        finally:
            await self._stream.aclose()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def test_finds_by_each_field() -> None:
    store = MemoryStore(NSE)
    store.put(nse("a", "one", url="tcp://1:1", color="red"))
    store.put(nse("b", "one", "two", url="tcp://2:1", color="blue"))
    store.put(nse("c"))
    assert names(store.find(nse(""))) == ["a", "b", "c"]
    assert names(store.find(nse("a"))) == ["a"]
    assert names(store.find(nse("", "one"))) == ["a", "b"]
    assert names(store.find(nse("", "two", "one"))) == ["b"]
    assert names(store.find(nse("", "three"))) == []
    assert names(store.find(nse("", url="tcp://2"))) == ["b"]
    assert names(store.find(nse("", "one", color="red"))) == ["a"]
    labels_only = NetworkServiceEndpoint()
    labels_only.network_service_labels["two"].labels["color"] = "blue"
    assert names(store.find(labels_only)) == ["b"]
    assert names(store.find(nse("a", "two"))) == []


def test_finds_services_by_name_and_payload() -> None:
    store = MemoryStore(NS)
    store.put(NetworkService(name="a", payload="IP"))
    store.put(NetworkService(name="b", payload="ETHERNET"))
    assert names(store.find(NetworkService(payload="IP"))) == ["a"]
    assert names(store.find(NetworkService(name="b"))) == ["b"]
    assert names(store.find(NetworkService(name="b", payload="IP"))) == []


def test_an_entry_that_changes_moves_in_the_index() -> None:
    store = MemoryStore(NSE)
    store.put(nse("a", "one"))
    store.put(nse("a", "two"))
    assert names(store.find(nse("", "one"))) == []
    assert names(store.find(nse("", "two"))) == ["a"]
    assert store.remove("a") is True
    assert store.remove("a") is False
    assert len(store) == 0
    assert not store._index


def test_nobody_gets_what_is_stored() -> None:
    store = MemoryStore(NSE)
    entry = nse("a", "one", url="tcp://1:1")
    store.put(entry)
    entry.url = "changed"
    for found in (store.get("a"), *store.find(nse("a"))):
        assert found is not None
        assert found.url == "tcp://1:1"
        found.url = "changed, too"
    again = store.get("a")
    assert again is not None
    assert again.url == "tcp://1:1"
    assert store.get("b") is None


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        MemoryStore(NSE).put(NetworkServiceEndpoint())


def test_a_kind_that_nobody_knows() -> None:
    with pytest.raises(ProgrammingError):
        matcher_of(Kind("thing", NetworkService))


async def test_a_watch_tells_the_snapshot_and_every_change_after_it() -> None:
    store = MemoryStore(NSE)
    store.put(nse("a", "one"))
    stream = store.watch(nse("", "one"))
    first = await anext(stream)
    store.put(nse("b", "one"))
    store.put(nse("c", "two"))
    store.put(nse("b", "one", url="tcp://b:1"))
    store.remove("a")
    store.remove("c")
    reader = Reader(stream)
    await settled()
    await reader.stop()
    assert first == Found(nse("a", "one"))
    assert reader.told == [("b", False), ("b", False), ("a", True)]
    assert reader.entries[1].url == "tcp://b:1"
    assert store.watchers == 0


async def test_an_item_that_stops_to_match_is_told_as_deleted() -> None:
    store = MemoryStore(NSE)
    readers = {
        "service": Reader(store.watch(nse("", "one"))),
        "labels": Reader(store.watch(nse("", "one", color="red"))),
        "url": Reader(store.watch(nse("", url="tcp://1"))),
        "name": Reader(store.watch(nse("a"))),
        "name and service": Reader(store.watch(nse("a", "one"))),
        "anything": Reader(store.watch(nse(""))),
    }
    await settled()
    store.put(nse("a", "one", url="tcp://1:1", color="red"))
    store.put(nse("a", "two", url="tcp://2:1", color="red"))
    store.put(nse("a", "three", url="tcp://2:1"))
    await settled()
    for reader in readers.values():
        await reader.stop()
    gone = [("a", False), ("a", True)]
    assert {what: reader.told for what, reader in readers.items()} == {
        "service": gone,
        "labels": gone,
        "url": gone,
        "name": [("a", False)] * 3,
        "name and service": gone,
        "anything": [("a", False)] * 3,
    }


async def test_a_watcher_that_does_not_read_holds_no_more_than_there_is() -> None:
    store = MemoryStore(NSE)
    lazy = store.watch(nse(""))
    store.put(nse("known"))
    assert (await anext(lazy)).entry.name == "known"
    quick = Reader(store.watch(nse("")))
    await settled()
    for turn in range(20 * MAX_UNREAD):
        store.put(nse(f"passing-{turn}"))
        store.remove(f"passing-{turn}")
        store.put(nse("known", url=f"tcp://{turn}:1"))
        if not turn % 50:
            await settled()
    store.remove("known")
    await settled()
    [watcher] = [
        watcher
        for groups in store._watching._groups.values()
        for group in groups.values()
        for watcher in group.members
        if len(watcher)
    ]
    assert len(watcher) <= 2 * MAX_UNREAD
    assert len(quick.told) == 1 + 3 * 20 * MAX_UNREAD + 1
    last = [await anext(lazy) for _ in range(len(watcher))][-1]
    assert (last.entry.name, last.deleted) == ("known", True)
    await quick.stop()
    await lazy.aclose()


def test_changes_melt_into_the_last_of_each_name() -> None:
    def change(name: str, data: bytes, *, deleted: bool = False, new: bool = False) -> Change:
        return Change(name, data, deleted, new)

    assert coalesced([change("a", b"1", new=True), change("a", b"2")]) == [change("a", b"2", new=True)]
    assert coalesced([change("a", b"1", new=True), change("a", b"1", deleted=True)]) == []
    assert coalesced([change("a", b"1"), change("a", b"1", deleted=True)]) == [change("a", b"1", deleted=True)]
    assert coalesced([change("a", b"1", deleted=True), change("a", b"2", new=True)]) == [change("a", b"2")]
    assert coalesced(
        [change("a", b"1", deleted=True), change("a", b"2", new=True), change("a", b"2", deleted=True)]
    ) == [change("a", b"2", deleted=True)]


async def test_streams_end_when_the_store_stops() -> None:
    role = Role("r", nse=Chain("r", Memory(NSE)))
    async with role.serving() as running:
        bound = running.bound.nse
        assert bound is not None
        await bound.register(running.call(), nse("a"))
        store = running.find(Memory).store
        reader = Reader(store.watch(nse("")))
        await settled()
    await settled()
    assert reader.told == [("a", False)]
    assert reader._task.done()
    async with role.serving() as running:
        assert len(running.find(Memory).store) == 0, "a registry that was restarted knows nothing"


async def test_the_element_keeps_what_is_answered_below() -> None:
    store = MemoryStore(NSE)
    bound = Chain("r", Memory(NSE, store)).bind(registry_end())
    async with Role("r").serving() as running:
        with pytest.raises(InvalidRequest):
            await bound.register(running.call(), NetworkServiceEndpoint(url="tcp://1:1"))
        for number in range(600):
            await bound.register(running.call(), nse(f"e-{number}", "one"))
        assert len(await find_all(bound, running.call(), Query(nse("", "one")))) == 600
        assert await find_one(bound, running.call(), Query(nse("e-7"), watch=True)) == nse("e-7", "one")
        assert store.watchers == 0
        await bound.unregister(running.call(), nse("e-7"))
        await bound.unregister(running.call(), nse("e-7"))
        assert "e-7" not in store


async def test_a_watcher_is_cancelled_while_it_waits() -> None:
    watcher = Watcher()
    task = asyncio.create_task(watcher.next())
    await settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    watcher.tell(Change("a", b"", False, True))
    change = await watcher.next()
    assert change is not None
    assert change.name == "a"
    watcher.end()
    assert await watcher.next() is None


QUERIES = (
    nse(""),
    nse("a"),
    nse("", "one"),
    nse("", "one", "two"),
    nse("b", "two"),
    nse("", url="tcp://1"),
    nse("", "one", color="red"),
)
ENTRIES = st.builds(
    lambda name, services, url, color: nse(name, *services, url=url, color=color),
    st.sampled_from("abcd"),
    st.lists(st.sampled_from(("one", "two")), max_size=3),
    st.sampled_from(("", "tcp://1:1", "tcp://2:1")),
    st.sampled_from(("red", "blue")),
)


class StoreMachine(RuleBasedStateMachine):
    """A store against a dictionary that is scanned; watchers that read now and then against what they were told."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model: dict[str, NetworkServiceEndpoint] = {}

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def make(self) -> None:
        self.store = MemoryStore(NSE)
        self.watches: list[tuple[int, AsyncGenerator[Found[Any], None], dict[str, Any]]] = []

    @rule(entry=ENTRIES)
    def put(self, entry: NetworkServiceEndpoint) -> None:
        self.store.put(entry)
        self.model[entry.name] = NSE.copy(entry)

    @rule(name=st.sampled_from("abcd"))
    def remove(self, name: str) -> None:
        assert self.store.remove(name) is (self.model.pop(name, None) is not None)

    @rule(query=st.sampled_from(range(len(QUERIES))))
    def watch(self, query: int) -> None:
        if len(self.watches) < 6:
            self.watches.append((query, self.store.watch(QUERIES[query]), {}))

    @rule(at=st.integers(0, 5), count=st.integers(1, 3))
    def read(self, at: int, count: int) -> None:
        if at < len(self.watches):
            for _ in range(count):
                self.run(self._read(at))

    async def _read(self, at: int) -> bool:
        """Read one item if there is one; a stream that has nothing to tell is left waiting for nothing."""
        _, stream, held = self.watches[at]
        task = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not task.done():
            # Cancelling would end the generator: give it something that it is told for certain.
            await self._poke(at, task, held)
            return False
        self._hold(await task, held)
        return True

    async def _poke(self, at: int, task: asyncio.Task[Found[Any]], held: dict[str, Any]) -> None:
        entry = nse("a", "one", "two", url="tcp://1:1", color="red")
        if QUERIES[self.watches[at][0]].name == "b":
            entry.name = "b"
        self.store.put(entry)
        self.model[entry.name] = NSE.copy(entry)
        self._hold(await task, held)

    def _hold(self, found: Found[Any], held: dict[str, Any]) -> None:
        if found.deleted:
            assert found.entry.name in held, "nobody is told that something is gone which it never saw"
            del held[found.entry.name]
        else:
            held[found.entry.name] = found.entry

    @invariant()
    def finds_agree(self) -> None:
        for query in QUERIES:
            expected = [entry for entry in self.model.values() if endpoint_matches(query, entry)]
            assert sorted(self.store.find(query), key=lambda one: str(one.name)) == sorted(
                expected, key=lambda one: one.name
            )

    def teardown(self) -> None:
        async def drain() -> None:
            for at, (query, _, held) in enumerate(self.watches):
                while await self._read(at):
                    pass
                while await self._read(at):
                    pass
                expected = {n: e for n, e in self.model.items() if endpoint_matches(QUERIES[query], e)}
                assert held == expected, QUERIES[query]
            for _, stream, _ in self.watches:
                await stream.aclose()

        self.run(drain())
        assert self.store.watchers == 0
        self.runner.close()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


async def test_calls_beside_each_other_share_one_store() -> None:
    store = MemoryStore(NSE)
    role = Role("r", nse=Chain("r", Memory(NSE, store), Memory(NSE, store)))
    async with role.serving() as running:
        assert running.bound.nse is not None
        call: Call = running.call()
        await running.bound.nse.register(call, nse("a"))
        assert names(await find_all(running.bound.nse, call, Query(nse("")))) == ["a"]
