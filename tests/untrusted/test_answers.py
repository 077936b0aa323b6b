# SPDX-License-Identifier: Apache-2.0
"""NextHop sides that answer whatever they like.

Does:  lets the next hop of a hop of ours answer with spoiled connections, with other connections, with no answer, and
       with monitor streams full of lies; sees that each becomes a clear error or is put right, that no other
       connection is touched, and that nothing stays.
Place: every hop that goes on elsewhere.
State: a hop and a far side per test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsm_sdk.api import (
    NETWORK_SERVICE_CLOSE,
    NETWORK_SERVICE_REQUEST,
    Connection,
    ConnectionEvent,
    Empty,
    EventType,
    PathSegment,
    Request,
    Selector,
    State,
)
from nsm_sdk.core import Call, Element, Next, WatchElement, WatchNext
from nsm_sdk.errors import DataLoss, DeadlineExceeded, NsmError, Status
from nsm_sdk.testing import settled
from tests.untrusted.middle import Middle, far_side, middle
from tests.untrusted.sizes import EXAMPLES
from tests.untrusted.strategies import fill, mangled, messages, spoiled

Edit = Callable[[Connection], Any]


class Answers(Element):
    """An endpoint whose answers are edited."""

    def __init__(self, edit: Edit = lambda conn: None) -> None:
        self.edit = edit
        self.open: set[str] = set()

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        self.open.add(conn.id)
        conn.path.path_segments.add(name="far", id="far-id", token="far-token")
        conn.network_service_endpoint_name = "far"
        return self.edit(conn) or conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self.open.discard(conn.id)


async def rest(mid: Middle) -> None:
    """Wait until what the hop does by itself has ended; see that it holds nothing."""
    for _ in range(200):
        await settled()
        if not mid.held():
            return
        await asyncio.sleep(0.01)
    assert mid.held() == {}


async def asked(mid: Middle) -> Connection | None:
    """The answer, or None after a clear error."""
    failure: NsmError | None = None
    try:
        return await mid.ask(mid.request())
    except NsmError as error:
        failure = error
    assert failure.status not in (Status.INTERNAL, Status.UNKNOWN), failure
    assert failure.hop == "mid"
    assert failure.hint
    return None


def good_answer() -> Connection:
    conn = Connection(id="mid-id", network_service="svc", network_service_endpoint_name="far", payload="IP")
    conn.path.index = 1
    for name in ("nsc", "mid", "far"):
        conn.path.path_segments.add(name=name, id=f"{name}-id", token=f"{name}-token")
    conn.mechanism.cls, conn.mechanism.type = "LOCAL", "KERNEL"
    conn.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
    return conn


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(
            spoiled(good_answer, keep=()),
            spoiled(good_answer),
            mangled(good_answer),
            messages(Connection),
        ),
        min_size=5,
        max_size=20,
    ),
    st.booleans(),
)
def test_any_answer_is_taken_or_refused_and_touches_nobody_else(answers: list[Connection], own_path: bool) -> None:
    async def main() -> None:
        far = Answers()
        async with far_side(far) as url, middle(url) as mid:
            other = await mid.ask(mid.request("other"))
            known = mid.hub.connections(Selector())
            for answer in answers:

                def edit(conn: Connection, answer: Connection = answer) -> Connection:
                    made = Connection()
                    made.CopyFrom(answer)
                    if own_path:
                        made.path.CopyFrom(conn.path)
                    return made

                far.edit = edit
                conn = await asked(mid)
                if conn is not None:
                    assert conn.id == conn.path.path_segments[0].id == "c-0"
                    shown = {one.id for one in mid.hub.connections(Selector())}
                    assert shown == {other.path.path_segments[1].id, conn.path.path_segments[1].id}
                    await mid.close(conn)
            far.edit = lambda conn: None
            assert mid.hub.connections(Selector()) == known
            await mid.close(other)
            await rest(mid)
            assert far.open == set()

    asyncio.run(main())


def _drop_segments(conn: Connection) -> None:
    del conn.path.path_segments[1:]


def _no_path(conn: Connection) -> None:
    conn.ClearField("path")


def _anothers(conn: Connection) -> None:
    conn.id = conn.path.path_segments[1].id = "victim"


def _another_client(conn: Connection) -> None:
    conn.path.path_segments[0].id = "victim"


@pytest.mark.parametrize("edit", [_drop_segments, _no_path, _anothers, _another_client])
@pytest.mark.parametrize("over", ["inproc", "grpc"])
async def test_an_answer_about_another_connection_is_refused(edit: Edit, over: str) -> None:
    far = Answers(edit)
    async with far_side(far, over=over) as url, middle(url) as mid:
        with pytest.raises(DataLoss, match="answered with another") as caught:
            await mid.ask(mid.request())
        assert caught.value.hop == "mid"
        assert caught.value.element == "Connect.request"
        assert "relied upon" in caught.value.hint
        await rest(mid)
        assert far.open == set()


@pytest.mark.parametrize("index", [0, 2, 7, 2**32 - 1])
async def test_id_and_index_of_an_answer_are_put_right(index: int) -> None:
    def edit(conn: Connection) -> None:
        conn.id = "somebody's"
        conn.path.index = index

    async with far_side(Answers(edit)) as url, middle(url) as mid:
        conn = await mid.ask(mid.request())
        assert (conn.id, conn.path.index) == ("c-0", 0)
        (shown,) = mid.hub.connections(Selector())
        assert (shown.id, shown.path.index) == (conn.path.path_segments[1].id, 1)
        await mid.close(conn)
        await rest(mid)


async def test_an_answer_of_too_much_is_refused() -> None:
    def edit(conn: Connection) -> None:
        conn.context.ip_context.src_ip_addrs.extend(["10.0.0.1/32"] * 9000)

    far = Answers(edit)
    async with far_side(far) as url, middle(url) as mid:
        with pytest.raises(DataLoss, match="src_ip_addrs has 9000 items, at most 8192") as caught:
            await mid.ask(mid.request())
        assert caught.value.hint
        await rest(mid)
        assert far.open == set()


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x03\xff\xfe\xfd", b"\x0a\x00" * 300_000])
async def test_an_answer_that_is_no_message_is_refused(raw: bytes, tmp_path: Any) -> None:
    closed: list[bytes] = []

    async def request(got: bytes, context: Any) -> bytes:
        return raw

    async def close(got: bytes, context: Any) -> bytes:
        closed.append(got)
        return Empty().SerializeToString()

    server = grpc.aio.server()
    for method, answer in ((NETWORK_SERVICE_REQUEST, request), (NETWORK_SERVICE_CLOSE, close)):
        handlers: dict[str, Any] = {method.name: grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(method.service, handlers),))
    server.add_insecure_port(f"unix:{tmp_path}/far")
    await server.start()
    try:
        async with middle(f"unix://{tmp_path}/far") as mid:
            with pytest.raises(DataLoss) as caught:
                await mid.ask(mid.request())
            assert caught.value.hop == "mid"
            assert caught.value.hint
            await rest(mid)
        assert len(closed) == 1
    finally:
        await server.stop(None)


async def test_a_far_side_that_never_answers_costs_the_callers_time_and_no_more() -> None:
    class Parks(Answers):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            self.open.add(request.connection.id)
            await anyio.sleep_forever()
            raise AssertionError

    far = Parks()
    async with far_side(far) as url, middle(url) as mid:
        with pytest.raises(DeadlineExceeded) as caught:
            await mid.ask(mid.request(), timeout=0.2)
        assert caught.value.hop
        assert caught.value.hint
        await rest(mid)
        assert far.open == set()


# --- monitor streams -------------------------------------------------------------------------------------------------


class Tells(WatchElement):
    """A monitor that says what the test puts into `events`; None ends the stream."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[ConnectionEvent | None] = asyncio.Queue()
        self.opened = 0

    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        self.opened += 1
        while (event := await self.events.get()) is not None:
            yield event

    def say(self, kind: int, *conns: Connection) -> None:
        event = ConnectionEvent()
        event.type = kind
        for conn in conns:
            event.connections[conn.id].CopyFrom(conn)
        self.events.put_nowait(event)


async def until(holds: Callable[[], bool]) -> None:
    """Let things happen until it holds."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.005)
    assert holds()


async def heard(mid: Middle, tells: Tells, conn: Connection) -> None:
    """See that the hop still listens: what is said last is shown."""
    (own,) = (one for one in mid.hub.connections(Selector()) if one.id == conn.path.path_segments[1].id)
    own.path.index = 2
    own.context.MTU = own.context.MTU % 9000 + 1
    tells.say(EventType.UPDATE, own)
    wanted = own.context.MTU
    await until(lambda: any(wanted == one.context.MTU for one in mid.hub.connections(Selector())))


async def test_events_of_no_known_kind_are_passed_over() -> None:
    tells = Tells()
    async with far_side(Answers(), tells) as url, middle(url) as mid:
        conn = await mid.ask(mid.request())
        await heard(mid, tells, conn)
        for kind in (3, 77, -1, 2**31 - 1):
            tells.say(kind, mid.hub.connections(Selector())[0])
        await heard(mid, tells, conn)
        assert tells.opened == 1
        await mid.close(conn)


async def test_an_event_changes_nothing_of_the_way_up_to_us() -> None:
    tells = Tells()
    async with far_side(Answers(), tells) as url, middle(url) as mid:
        conn = await mid.ask(mid.request())
        (own,) = mid.hub.connections(Selector())
        lie = Connection()
        lie.CopyFrom(own)
        lie.path.index = 2
        lie.path.path_segments[0].name, lie.path.path_segments[0].id = "victim", "victim-id"
        lie.path.path_segments[2].id = "new"
        tells.say(EventType.UPDATE, lie)
        await until(lambda: mid.hub.connections(Selector())[0].path.path_segments[2].id == "new")
        assert mid.hub.connections(Selector(path_segments=[PathSegment(name="victim", id="victim-id")])) == []
        (now,) = mid.hub.connections(Selector(path_segments=[PathSegment(name="nsc", id="c-0")]))
        assert now.path.path_segments[:2] == own.path.path_segments[:2]
        await mid.close(conn)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(messages(ConnectionEvent), spoiled(good_answer, keep=())), min_size=5, max_size=30))
def test_any_event_leaves_the_hop_listening_and_other_connections_alone(said: list[Any]) -> None:
    async def main() -> None:
        tells = Tells()
        async with far_side(Answers(), tells) as url, middle(url) as mid:
            conn, other = await mid.ask(mid.request()), await mid.ask(mid.request("other"))
            (own,) = mid.hub.connections(Selector(path_segments=[PathSegment(name="nsc", id="c-0")]))
            untouched = mid.hub.connections(Selector(path_segments=[PathSegment(name="nsc", id="other")]))
            for one in said:
                if isinstance(one, ConnectionEvent):
                    # Lists that lack a connection mean that it is gone, which concerns all.
                    one.type = max(one.type, 1)
                    tells.events.put_nowait(one)
                    continue
                lie = Connection()
                lie.CopyFrom(own)
                lie.path.index = 2
                fill(lie, {"state": 0})
                lie.context.CopyFrom(one.context)
                lie.path.path_segments.extend(one.path.path_segments)
                tells.say(EventType.UPDATE, lie)
            await heard(mid, tells, conn)
            assert tells.opened == 1
            assert mid.hub.connections(Selector(path_segments=[PathSegment(name="nsc", id="other")])) == untouched
            assert len(mid.hub) == 2
            await mid.close(conn)
            await mid.close(other)
            await rest(mid)

    asyncio.run(main())


async def test_a_flood_of_events_about_others_is_not_kept() -> None:
    tells = Tells()
    async with far_side(Answers(), tells) as url, middle(url) as mid:
        conn = await mid.ask(mid.request())
        for number in range(900):
            stranger = good_answer()
            stranger.id = stranger.path.path_segments[1].id = f"stranger-{number}"
            stranger.context.extra_context["x"] = "y" * 20_000
            tells.say(EventType.UPDATE, stranger)
        await heard(mid, tells, conn)
        peers = list(mid.follower._peers.values())
        assert sum(one.ByteSize() for peer in peers for _, one, _ in peer.unclaimed.values()) < 100_000
        await mid.close(conn)
        await rest(mid)


async def test_streams_that_end_are_opened_again_and_none_stays() -> None:
    tells = Tells()
    async with far_side(Answers(), tells) as url, middle(url) as mid:
        conn = await mid.ask(mid.request())
        for _ in range(3):
            tells.events.put_nowait(None)
        await until(lambda: tells.opened == 4)
        assert mid.hub.connections(Selector())[0].state == State.DOWN
        await mid.close(conn)
        await rest(mid)
