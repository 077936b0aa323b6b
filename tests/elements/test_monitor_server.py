# SPDX-License-Identifier: Apache-2.0
"""The hub: every stream hears what its selector means, in order, and nothing else."""

from __future__ import annotations

from contextlib import aclosing

import anyio
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, ConnectionEvent, EventType, PathSegment, Selector, Snapshot, State, matches
from nsm_sdk.core import Chain, Role
from nsm_sdk.elements import Hub, Watch
from nsm_sdk.elements.monitor_server import QUEUE, Subscriber
from nsm_sdk.testing import current_clock, run_virtual, settled, virtual_time


def conn(conn_id: str, *hops: tuple[str, str], service: str = "ns", state: State = State.UP) -> Connection:
    made = Connection(id=conn_id, network_service=service, state=state)
    made.path.path_segments.extend(PathSegment(name=name, id=hop_id) for name, hop_id in hops or [("a", conn_id)])
    return made


class Reader:
    """Reads a stream in the background."""

    def __init__(self, hub: Hub, selector: Selector) -> None:
        self.hub = hub
        self.selector = selector
        self.events: list[ConnectionEvent] = []
        self.ended = False

    async def run(self) -> None:
        async with aclosing(self.hub.watch(self.selector)) as stream:
            async for event in stream:
                self.events.append(event)
        self.ended = True


def select(*hops: tuple[str, str], services: tuple[str, ...] = ()) -> Selector:
    return Selector(path_segments=[PathSegment(name=n, id=i) for n, i in hops], network_services=services)


@virtual_time
async def test_the_present_state_comes_first_even_when_there_is_none() -> None:
    hub = Hub()
    reader = Reader(hub, select(("a", "c1")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.run)
        await settled()
        assert [event.type for event in reader.events] == [EventType.INITIAL_STATE_TRANSFER]
        assert not reader.events[0].connections
        hub.update(conn("c1"))
        hub.update(conn("c2"))
        hub.delete(conn("c1"))
        await settled()
        assert [event.type for event in reader.events[1:]] == [EventType.UPDATE, EventType.DELETE]
        assert all(list(event.connections) == ["c1"] for event in reader.events[1:])
        tasks.cancel_scope.cancel()
    assert hub.subscribers == 0


@virtual_time
async def test_a_later_subscriber_sees_the_state_as_it_is() -> None:
    hub = Hub()
    hub.update(conn("c1", state=State.DOWN))
    assert hub.request_refresh("c1")
    assert not hub.request_refresh("unknown")
    async with aclosing(hub.watch(Selector())) as stream:
        first = await anext(stream)
    assert first.connections["c1"].state == State.REFRESH_REQUESTED


@virtual_time
async def test_a_stream_ends_normally_when_the_hop_stops() -> None:
    hub = Hub()
    reader = Reader(hub, Selector())
    serving = Role("x", monitor=Chain("monitor", Watch(hub))).serving(clock=current_clock())
    async with anyio.create_task_group() as tasks, serving:
        tasks.start_soon(reader.run)
        await settled()
    assert reader.ended
    assert hub.subscribers == 0


@virtual_time
async def test_who_does_not_read_delays_nobody_and_misses_only_what_was_overtaken() -> None:
    hub = Hub()
    async with aclosing(hub.watch(Selector())) as slow:
        await anext(slow)
        for turn in range(QUEUE * 2):
            hub.update(conn(f"c{turn % 3}", state=State.DOWN if turn % 2 else State.UP))
        hub.delete(conn("c0"))
        last: dict[str, ConnectionEvent] = {}
        count = 0
        with anyio.move_on_after(1):
            async for event in slow:
                count += 1
                last.update(dict.fromkeys(event.connections, event))
    assert count <= QUEUE + 1
    assert last["c0"].type == EventType.DELETE
    assert {last["c1"].connections["c1"].state, last["c2"].connections["c2"].state} <= {State.UP, State.DOWN}
    assert len(hub) == 2


class Merging(Subscriber):
    """Counts how many events it has looked at to merge them."""

    looked_at = 0

    def _merge(self) -> None:
        self.looked_at += len(self.queue)
        super()._merge()


@virtual_time
async def test_events_of_more_connections_than_may_wait_are_not_merged_one_by_one() -> None:
    subscriber = Merging(Selector())
    connections = [Snapshot.of(conn(f"c{number}")) for number in range(4 * QUEUE)]
    turns = 6
    for _ in range(turns):
        for snapshot in connections:
            subscriber.put(EventType.UPDATE, snapshot, routine=False)
        assert len(subscriber.queue) <= 2 * len(connections)
    assert subscriber.looked_at <= 3 * turns * len(connections)
    while subscriber.queue:
        subscriber.take()
    for _ in range(QUEUE):
        subscriber.put(EventType.UPDATE, connections[0], routine=False)
    assert len(subscriber.queue) == QUEUE


names = st.sampled_from(["a", "b", ""])
hops = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12")), min_size=1, max_size=3)
selectors = st.builds(
    select,
    st.tuples(names, st.sampled_from(["1", "2", ""])),
    services=st.sampled_from([(), ("ns",), ("other",)]),
) | st.builds(lambda found: select(*found), st.lists(st.tuples(names, st.sampled_from(["1", "2", ""])), max_size=2))
changes = st.lists(st.tuples(st.sampled_from("xyz"), hops, st.booleans()), max_size=8)


@given(selectors, changes, changes)
def test_indexes_find_what_a_scan_would_find(
    selector: Selector,
    before: list[tuple[str, list[tuple[str, str]], bool]],
    after: list[tuple[str, list[tuple[str, str]], bool]],
) -> None:
    async def run() -> None:
        hub = Hub()
        table: dict[str, Connection] = {}

        def change(conn_id: str, path: list[tuple[str, str]], gone: bool) -> Connection:
            made = conn(conn_id, *path)
            if gone:
                table.pop(conn_id, None)
                hub.delete(made)
            else:
                table[conn_id] = made
                hub.update(made)
            return made

        for one in before:
            change(*one)
        reader = Reader(hub, selector)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.run)
            await settled()
            expected = {conn_id for conn_id, found in table.items() if matches(selector, found)}
            assert set(reader.events[0].connections) == expected
            heard = [made.id for made in (change(*one) for one in after) if matches(selector, made)]
            await settled()
            assert [next(iter(event.connections)) for event in reader.events[1:]] == heard
            tasks.cancel_scope.cancel()

    run_virtual(run)
