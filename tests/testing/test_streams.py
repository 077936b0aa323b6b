# SPDX-License-Identifier: Apache-2.0
"""Doubles of the registry family and the watch family."""

from __future__ import annotations

from contextlib import aclosing

import anyio
import pytest

from nsm_sdk.api import ConnectionEvent, EventType, NetworkServiceEndpoint, Selector
from nsm_sdk.core import Found, Query, find_all, find_one
from nsm_sdk.errors import ChainOrderError, Unavailable
from nsm_sdk.testing import (
    Entries,
    Feed,
    RegistryFailTimes,
    RegistryProbe,
    bind_registry,
    bind_watch,
    rig,
    sample_endpoint,
    sample_service,
    settled,
    virtual_time,
)

ANY = Query(NetworkServiceEndpoint())


@virtual_time
async def test_entries_are_registered_found_and_unregistered() -> None:
    entries: Entries[NetworkServiceEndpoint] = Entries(sample_endpoint("one"))
    probe: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    bound = bind_registry(probe, entries)
    async with rig() as bench:
        await bound.register(bench.call(), sample_endpoint("two"))
        assert [entry.name for entry in await find_all(bound, bench.call(), ANY)] == ["one", "two"]
        one = await find_one(bound, bench.call(), Query(sample_endpoint("one")))
        assert one is not None
        one.url = "changed by the reader"
        await bound.unregister(bench.call(), sample_endpoint("two"))
        await bound.unregister(bench.call(), sample_endpoint("unknown"))
    assert entries.names == ["one"]
    assert probe.seen.verbs == ["register", "find", "find", "unregister", "unregister"]
    assert [found.entry.name for found in probe.seen.calls[1].answer] == ["one", "two"]
    assert probe.open == 0


@virtual_time
async def test_watches_get_what_changes_until_they_are_closed_or_broken() -> None:
    entries: Entries[NetworkServiceEndpoint] = Entries(sample_endpoint("one"))
    probe: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    bound = bind_registry(probe, entries)
    got: list[tuple[str, bool]] = []
    failed: list[Exception] = []

    async def watch() -> None:
        async with aclosing(bound.find(bench.call(), Query(ANY.entry, watch=True))) as stream:
            try:
                async for found in stream:
                    got.append((found.entry.name, found.deleted))  # noqa: PERF401 (seen as they come)
            except Unavailable as error:
                failed.append(error)

    async with rig() as bench, anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await settled()
        assert (entries.watching, probe.open) == (1, 1)
        entries.put(sample_endpoint("two"))
        entries.remove("one")
        await settled()
        assert got == [("one", False), ("two", False), ("one", True)]
        entries.break_watches(Unavailable("gone"))
        await settled()
        assert len(failed) == 1
        assert (entries.watching, probe.open) == (0, 0)
        tasks.start_soon(watch)
        await settled()
        tasks.cancel_scope.cancel()
    assert entries.watching == 0


@virtual_time
@pytest.mark.parametrize("verb", ["register", "unregister", "find"])
async def test_one_verb_fails_a_few_times(verb: str) -> None:
    below: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    fails: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(1, Unavailable("no"), verb=verb)
    bound = bind_registry(fails, below, Entries(sample_endpoint("one")))

    async def all_verbs() -> list[str]:
        failed = []
        for name in ("register", "unregister", "find"):
            try:
                if name == "find":
                    await find_all(bound, bench.call(), ANY)
                else:
                    await getattr(bound, name)(bench.call(), sample_endpoint("one"))
            except Unavailable:
                failed.append(name)
        return failed

    async with rig() as bench:
        assert await all_verbs() == [verb]
        assert len(below.seen.of(verb)) == 0
        assert await all_verbs() == []
    assert len(below.seen.calls) == 5


@virtual_time
async def test_services_are_entries_too() -> None:
    bound = bind_registry(Entries(sample_service()))
    async with rig() as bench:
        assert await find_all(bound, bench.call(), Query(sample_service())) == [sample_service()]


@virtual_time
async def test_a_feed_sends_what_the_test_says() -> None:
    first = ConnectionEvent(type=EventType.INITIAL_STATE_TRANSFER)
    feed = Feed(first)
    bound = bind_watch(feed)
    got: list[ConnectionEvent] = []

    async def read() -> None:
        async with aclosing(bound.watch(bench.call(), Selector())) as stream:
            async for event in stream:
                got.append(event)  # noqa: PERF401 (seen as they come)

    async with rig() as bench, anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await settled()
        assert got == [first]
        assert feed.open == 1
        feed.send(ConnectionEvent(type=EventType.UPDATE))
        feed.end()
        await settled()
        assert [event.type for event in got] == [EventType.INITIAL_STATE_TRANSFER, EventType.UPDATE]
        assert feed.open == 0
        assert len(feed.seen.of("watch")) == 1


@virtual_time
async def test_a_feed_can_break() -> None:
    feed = Feed()
    async with rig() as bench:
        stream = bind_watch(feed).watch(bench.call(), Selector())

        async def read() -> list[ConnectionEvent]:
            async with aclosing(stream):
                return [event async for event in stream]

        async with anyio.create_task_group() as tasks:

            async def expect() -> None:
                with pytest.raises(Unavailable):
                    await read()

            tasks.start_soon(expect)
            await settled()
            feed.fail(Unavailable("gone"))
    assert feed.open == 0


def test_the_end_of_a_chain_is_the_end() -> None:
    with pytest.raises(ChainOrderError):
        bind_registry(Entries[NetworkServiceEndpoint](), RegistryProbe[NetworkServiceEndpoint]())
    assert Found(sample_endpoint()).deleted is False
