# SPDX-License-Identifier: Apache-2.0
"""How connections end: by their dialer, by a hop that stops, by a peer that ends them by age; and what is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import grpc.aio
import pytest

from nsm_sdk import Client, Endpoint, api
from nsm_sdk.api import Connection, ConnectionEvent, Request, Selector, Snapshot
from nsm_sdk.core import Bound, Call, Clock, Role, Running, SystemClock
from nsm_sdk.elements import Follower, Heard, News
from nsm_sdk.elements.connect import NextHop
from nsm_sdk.errors import Cancelled, ConnectionRetired, DeadlineExceeded, Internal, NotReached, Unavailable
from nsm_sdk.lab import UNIX, Cluster
from nsm_sdk.testing import connected_sockets, settled
from nsm_sdk.transport import Dialer, listen
from nsm_sdk.transport.health import WATCH
from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.frames import Code
from tests.run import unique
from tests.transport.adapters import address, pair, role
from tests.transport.raw import ANSWER, CALL, EMPTY, Raw, calling, serving

DATA = frames.frame(frames.DATA, frames.END_STREAM, 1, EMPTY)
METHOD = "/networkservice.NetworkService/Request"
own_sockets = pytest.mark.parametrize("adapter", ["unix", "tcp"])


async def closed(sockets: frozenset[str]) -> None:
    """Wait until no connection stands but these: a peer hears of an end one turn of the loop later."""
    while connected_sockets() - sockets:
        await settled()


class Held:
    """What calls do that a test holds up."""

    def __init__(self, callers: int = 1) -> None:
        self.allow = asyncio.Event()
        self.all = asyncio.Event()
        self._callers = callers

    async def __call__(self, call: Call, request: Request) -> None:
        self._callers -= 1
        if not self._callers:
            self.all.set()
        await self.allow.wait()


# --- sockets are given back ------------------------------------------------------------------------------------------


@own_sockets
async def test_a_dialer_that_stops_leaves_no_socket_at_either_end(adapter: str, tmp_path: Path) -> None:
    made, _ = role()
    async with made.serving(listen=[listen(address(adapter, tmp_path))]) as running:
        before = connected_sockets()
        for _ in range(20):
            dialer = Dialer()
            async with Role("client", services=[dialer]).serving() as client:
                far = dialer(running.urls[0])
                assert far.connection is not None
                await far.connection.request(client.call(timeout=10), Request())
                assert len(connected_sockets() - before) == 2
            async with asyncio.timeout(10):
                await closed(before)


async def test_a_bound_that_was_kept_is_closed_with_its_dialer(tmp_path: Path) -> None:
    dialer = Dialer(idle=1)
    before = connected_sockets()
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(3):
            at = listen(address("unix", tmp_path))
            urls.append((await stack.enter_async_context(role()[0].serving(listen=[at]))).urls[0])
        client = await stack.enter_async_context(Role("client", services=[dialer]).serving())
        # The pool forgets all but the last of them; the others are opened again by those who kept them.
        kept: list[Bound | None] = [dialer(url) for url in urls]
        for _ in range(2):
            for far in kept:
                assert far is not None
                assert far.connection is not None
                await far.connection.request(client.call(timeout=10), Request())
        far = None
        kept.clear()
        await dialer.stop()
        async with asyncio.timeout(10):
            await closed(before)


async def test_nobody_dials_with_a_dialer_whose_role_has_ended(tmp_path: Path) -> None:
    made, _ = role()
    dialer = Dialer(dial_timeout=2.0)
    async with made.serving(listen=[listen(address("unix", tmp_path))]) as running:
        async with Role("client", services=[dialer]).serving():
            far = dialer(running.urls[0])
        before = connected_sockets()
        async with Role("other").serving() as other:
            assert far.connection is not None
            with pytest.raises(Unavailable):
                await far.connection.request(other.call(timeout=10), Request())
            async with asyncio.timeout(10):
                await closed(before)
            async with Role("client", services=[dialer]).serving():
                await far.connection.request(other.call(timeout=10), Request())


async def test_a_call_of_a_role_that_has_ended_leaves_nobody_dialing(tmp_path: Path) -> None:
    dialer = Dialer(dial_timeout=0.05)
    async with Role("other", services=[dialer]).serving() as other:
        async with Role("client").serving() as client:
            far = dialer(f"unix://{tmp_path}/nobody")
        assert far.connection is not None
        with pytest.raises(Unavailable, match="the hop has ended"):
            await far.connection.request(client.call(timeout=10), Request())
        with pytest.raises(NotReached):
            await far.connection.request(other.call(timeout=10), Request())
        async with asyncio.timeout(10):
            while other.runtime.running:
                await settled()


async def test_a_call_of_a_role_that_ends_dials_once(tmp_path: Path) -> None:
    dialer, begun = Dialer(dial_timeout=0.05), asyncio.Event()
    names: list[str] = []
    refused: list[Exception] = []

    def noting(loop: asyncio.AbstractEventLoop, coro: Any, **settings: Any) -> asyncio.Task[Any]:
        names.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **settings)

    async def clean_up() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                far = dialer(f"unix://{tmp_path}/nobody")
                assert far.connection is not None
                try:
                    await far.connection.request(client.call(timeout=10), Request())
                except NotReached as error:
                    refused.append(error)

    async with Role("other", services=[dialer]).serving():
        async with Role("client").serving() as client:
            client.runtime.spawn(clean_up, "clean up")
            await begun.wait()
            asyncio.get_running_loop().set_task_factory(noting)
        asyncio.get_running_loop().set_task_factory(None)
    assert len(refused) == 1
    assert names.count("Runtime._background") == 1


async def test_clients_and_endpoints_leave_no_socket(tmp_path: Path) -> None:
    async with Cluster(UNIX) as cluster:
        node = await cluster.node()
        await node.endpoint("nse", service="lasting")
        async with Client(node.manager.url, name="first") as client, client.connect("kernel://lasting"):
            pass
        async with asyncio.timeout(60):
            await settled()
            before = len(connected_sockets())
            for number in range(20):
                async with Client(node.manager.url, name=f"app-{number}") as client, client.connect("kernel://lasting"):
                    pass
                async with Endpoint(
                    f"nse-{number}",
                    service=f"s{number}",
                    registry=node.manager.url,
                    listen=address("unix", tmp_path),
                ):
                    pass
            while len(connected_sockets()) > before:
                await settled()


# --- a hop that stops ------------------------------------------------------------------------------------------------


Stopping = tuple[Running, Callable[[], asyncio.Task[None]]]


class Turns:
    """Counts what each of several callers has done."""

    def __init__(self, callers: int) -> None:
        self.over = False
        self._callers = callers
        self._counts: dict[int, int] = {}
        self._changed = asyncio.Event()

    def one(self, caller: int) -> None:
        self._counts[caller] = self._counts.get(caller, 0) + 1
        self._changed.set()

    async def all(self, times: int = 3) -> None:
        """Wait until each has done that many more."""
        self._counts.clear()
        while len(self._counts) < self._callers or min(self._counts.values()) < times:
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def stopping(made: Role, url: str, *, drain: float = 30.0) -> AsyncGenerator[Stopping, None]:
    """Serve, and give a function that begins to stop."""
    leave, ready = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with made.serving(listen=[listen(url)], drain=drain) as running:
            ready.set_result(running)
            await leave.wait()

    task = asyncio.create_task(run())

    def stop() -> asyncio.Task[None]:
        leave.set()
        return task

    try:
        yield await ready, stop
    finally:
        await stop()


async def test_the_goodbye_has_two_steps(tmp_path: Path) -> None:
    held = Held()
    made, _ = role(held)
    async with stopping(made, address("unix", tmp_path)) as (running, stop), calling(running.urls[0]) as raw:
        raw.send(raw.headers(1), DATA)
        await held.all.wait()
        ended = stop()
        _, first = await raw.until(frames.GOAWAY)
        assert frames.read_goaway(first)[:2] == (frames.LARGEST, Code.NO_ERROR)
        _, ping = await raw.until(frames.PING)
        # On its way before the caller had heard: it is a call like any other.
        raw.send(raw.headers(3), frames.frame(frames.DATA, 0, 3, EMPTY[:2]))
        raw.send(frames.frame(frames.PING, frames.ACK, 0, ping))
        _, second = await raw.until(frames.GOAWAY)
        assert frames.read_goaway(second)[:2] == (3, Code.NO_ERROR)
        raw.send(raw.headers(5), frames.frame(frames.DATA, frames.END_STREAM, 5, EMPTY))
        raw.send(frames.frame(frames.DATA, frames.END_STREAM, 3, EMPTY[2:]))
        held.allow.set()
        for stream in (1, 3):
            assert (await raw.pairs(stream))[":status"] == "200"
            assert (await raw.pairs(stream))["grpc-status"] == "0"
        await ended
        assert await raw.reader.read() == b"", "the socket closes last"


async def test_a_caller_that_does_not_confirm_holds_up_nobody(tmp_path: Path) -> None:
    made, _ = role()
    async with stopping(made, address("unix", tmp_path)) as (running, stop), calling(running.urls[0]) as raw:
        async with asyncio.timeout(10):
            await stop()
        for _ in range(2):
            await raw.until(frames.GOAWAY)
        assert await raw.reader.read() == b""


@own_sockets
async def test_sixteen_callers_lose_nothing(adapter: str, tmp_path: Path) -> None:
    """Callers that call again and again while one server after the other stops, and the next takes its place."""
    turns = Turns(16)
    url = address("unix", tmp_path)
    if adapter == "tcp":
        async with role()[0].serving(listen=[listen("tcp://127.0.0.1:0")]) as probe:
            url = probe.urls[0]
    dialer = Dialer(dial_timeout=10.0)

    async def slowly(call: Call, request: Request) -> None:
        await anyio.sleep(0.001)

    async with Role("client", services=[dialer]).serving() as client:

        async def caller(number: int) -> None:
            far = dialer(url)
            assert far.connection is not None
            while not turns.over:
                await far.connection.request(client.call(timeout=30), Request())
                turns.one(number)

        async with anyio.create_task_group() as tasks:
            for server in range(4):
                made, _ = role(slowly)
                async with made.serving(listen=[listen(url)], drain=30.0):
                    if not server:
                        for number in range(16):
                            tasks.start_soon(caller, number)
                    await turns.all()
                    turns.over = server == 3


async def test_a_grpc_client_with_retries_notices_nothing(tmp_path: Path) -> None:
    url = address("unix", tmp_path)
    policy = {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
    options = [("grpc.service_config", json.dumps(policy)), ("grpc.initial_reconnect_backoff_ms", 100)]
    turns = Turns(16)
    async with grpc.aio.insecure_channel(f"unix:{url.removeprefix('unix://')}", options=options) as channel:
        stub: Any = channel.unary_unary(METHOD)

        async def caller(number: int) -> None:
            while not turns.over:
                await stub(b"", timeout=30)
                turns.one(number)

        async with anyio.create_task_group() as tasks:
            for server in range(3):
                made, _ = role()
                async with made.serving(listen=[listen(url)], drain=30.0):
                    if not server:
                        for number in range(16):
                            tasks.start_soon(caller, number)
                    await turns.all()
                    turns.over = server == 2


@own_sockets
async def test_calls_that_run_end_well_and_streams_unavailable(adapter: str, tmp_path: Path) -> None:
    held = Held(16)

    async def watch(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        yield ConnectionEvent()
        await asyncio.Event().wait()

    made, _ = role(held, watch)
    dialer = Dialer()
    async with (
        Role("client", services=[dialer]).serving() as client,
        stopping(made, address(adapter, tmp_path)) as (running, stop),
    ):
        far = dialer(running.urls[0])
        assert far.connection is not None
        assert far.monitor is not None
        calls = [asyncio.create_task(far.connection.request(client.call(timeout=30), Request())) for _ in range(16)]
        async with aclosing(far.monitor.watch(client.call(timeout=30), Selector())) as events:
            await anext(events)
            await held.all.wait()
            ended = stop()
            while running.runtime.accepting:
                await settled()
            held.allow.set()
            assert await asyncio.gather(*calls) == [Connection()] * 16
            with pytest.raises(Unavailable, match="shutting down") as caught:
                await anext(events)
            assert not isinstance(caught.value, ConnectionRetired), "the hop itself says that it goes"
        await ended


async def test_what_outlasts_the_shutdown_time_is_unavailable(tmp_path: Path) -> None:
    held = Held()
    made, _ = role(held)
    dialer = Dialer()
    async with (
        Role("client", services=[dialer]).serving() as client,
        stopping(made, address("unix", tmp_path), drain=0.05) as (running, stop),
    ):
        far = dialer(running.urls[0])
        assert far.connection is not None
        task = asyncio.create_task(far.connection.request(client.call(timeout=30), Request()))
        await held.all.wait()
        await stop()
        with pytest.raises(Unavailable, match="shutting down"):
            await task


async def test_a_large_answer_that_is_on_its_way_arrives_as_what_it_is(tmp_path: Path) -> None:
    async def large(call: Call, request: Request) -> Connection:
        return Connection(id="x" * 200_000)

    made, _ = role(large)
    health = tuple((key, WATCH if key == ":path" else old) for key, old in CALL)
    async with stopping(made, address("unix", tmp_path)) as (running, stop), calling(running.urls[0]) as raw:
        raw.send(frames.window_update(0, 1 << 20), raw.headers(1), DATA, raw.headers(3, health))
        size = 0
        while size < frames.WINDOW:
            size += len((await raw.until(frames.DATA, 1))[1])
        raw.send(frames.frame(frames.DATA, frames.END_STREAM, 3, EMPTY))
        assert (await raw.pairs(3))[":status"] == "200"
        ended = stop()
        _, ping = await raw.until(frames.PING)
        raw.send(frames.frame(frames.PING, frames.ACK, 0, ping))
        assert (await raw.pairs(3))["grpc-status"] == "14", "the time of all that still runs is up"
        raw.send(frames.window_update(1, 1 << 20))
        assert (await raw.pairs(1))["grpc-status"] == "0"
        await ended


# --- reasons ---------------------------------------------------------------------------------------------------------


class Shifted:
    """A clock that a test puts forward, before the event loop has had time to see to its timers."""

    def __init__(self) -> None:
        self.forward = 0.0
        self._clock = SystemClock()

    def now(self) -> float:
        return self._clock.now() + self.forward

    def wall(self) -> float:
        return self._clock.wall()


@asynccontextmanager
async def against(
    folder: Path, behave: Callable[[Raw], Coroutine[Any, Any, None]], clock: Clock | None = None
) -> AsyncGenerator[tuple[Running, Bound], None]:
    path = f"{folder}/{unique('r')}"
    dialer = Dialer()
    async with serving(path, behave), Role("client", services=[dialer]).serving(clock=clock) as client:
        yield client, dialer(f"unix://{path}")


async def watched(client: Running, far: Bound) -> list[ConnectionEvent]:
    """All events of a watch."""
    assert far.monitor is not None
    async with aclosing(far.monitor.watch(client.call(timeout=60), Selector())) as events:
        return [event async for event in events]


async def asked(client: Running, far: Bound) -> Connection:
    assert far.connection is not None
    return await far.connection.request(client.call(timeout=60), Request())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("ask", [asked, watched])
async def test_a_reset_after_the_deadline_is_the_deadlines(ask: Any, late: bool, tmp_path: Path) -> None:
    clock = Shifted()

    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA, 1)
        clock.forward = 60.0 if late else 0.0
        if ask is watched:
            raw.send(raw.headers(1, ANSWER))
        raw.send(frames.reset(1, Code.CANCEL))
        await raw.reader.read()

    async with against(tmp_path, behave, clock) as (client, far):
        with pytest.raises(DeadlineExceeded if late else Cancelled):
            await ask(client, far)


@pytest.mark.parametrize("ask", [asked, watched])
async def test_the_reason_of_a_goodbye_reaches_the_calls_that_it_ends(ask: Any, tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA, 1)
        raw.send(frames.goaway(1, Code.ENHANCE_YOUR_CALM, "too_many_pings"))

    async with against(tmp_path, behave) as (client, far):
        with pytest.raises(Unavailable, match=r"ENHANCE_YOUR_CALM too_many_pings") as caught:
            await ask(client, far)
        assert not isinstance(caught.value, ConnectionRetired)


async def test_the_reason_of_a_goodbye_before_any_call_is_in_the_error(tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        raw.send(frames.goaway(0, Code.ENHANCE_YOUR_CALM, "too_many_pings"))

    async with against(tmp_path, behave) as (client, far):
        with pytest.raises(Unavailable, match=r"too_many_pings"):
            await asked(client, far)


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.CANCEL, None])
async def test_a_connection_that_ends_by_age_says_so(code: Code | None, tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA, 1)
        raw.send(raw.headers(1, ANSWER), frames.goaway(1, Code.NO_ERROR, "max_age"))
        if code is not None:
            raw.send(frames.reset(1, code))
            await raw.reader.read()

    async with against(tmp_path, behave) as (client, far):
        with pytest.raises(ConnectionRetired, match=r"max_age|reset"):
            await watched(client, far)


@pytest.mark.parametrize("encoding", ["gzip", "snappy", ""])
async def test_a_compressed_message_is_refused_with_what_is_understood(encoding: str, tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        more: dict[str, Any] = {"grpc_encoding": encoding} if encoding else {}
        raw.send(raw.headers(1, **more), frames.frame(frames.DATA, frames.END_STREAM, 1, b"\x01\0\0\0\x01a"))
        found = await raw.pairs(1)
        assert (found["grpc-status"], found["grpc-accept-encoding"]) == ("12", "identity")
        assert encoding in found["grpc-message"]
        raw.send(raw.headers(3, **more), frames.frame(frames.DATA, frames.END_STREAM, 3, EMPTY))
        assert await raw.pairs(3) == dict(ANSWER), "a message that is not compressed is taken all the same"
        assert (await raw.pairs(3))["grpc-status"] == "0"


async def test_a_grpc_client_that_compresses_reads_which_encoding_is_refused(tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p:
        path = f"unix:{p.url.removeprefix('unix://')}"
        async with grpc.aio.insecure_channel(path, compression=grpc.Compression.Gzip) as channel:
            stub: Any = channel.unary_unary(METHOD)
            with pytest.raises(grpc.aio.AioRpcError, match="'gzip'") as caught:
                await stub(Request(connection=Connection(id="x" * 1000)).SerializeToString(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_compressed_answer_names_its_encoding(tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA, 1)
        raw.send(raw.headers(1, ANSWER, grpc_encoding="gzip"), frames.frame(frames.DATA, 0, 1, b"\x01\0\0\0\x01a"))
        await raw.reader.read()

    async with against(tmp_path, behave) as (client, far):
        with pytest.raises(Internal, match="'gzip'"):
            await asked(client, far)


# --- a monitor stream whose connection comes of age -----------------------------------------------------------------


async def test_a_monitor_stream_is_opened_again_where_its_connection_came_of_age(tmp_path: Path) -> None:
    """The peer ends one connection after the other in good order, and in the end for good."""
    conn = Connection(id="id-2")
    conn.path.index = 1
    for number, name in enumerate(("client", "peer"), 1):
        conn.path.path_segments.add(name=name, id=f"id-{number}")
    message = ConnectionEvent(type=api.EventType.INITIAL_STATE_TRANSFER)
    message.connections[conn.id].CopyFrom(conn)
    raw_message = message.SerializeToString()
    initial = b"\0" + len(raw_message).to_bytes(4) + raw_message
    streams = 0

    async def behave(raw: Raw) -> None:
        nonlocal streams
        await raw.until(frames.DATA, 1)
        streams += 1
        raw.send(raw.headers(1, ANSWER), frames.frame(frames.DATA, 0, 1, initial))
        if streams < 4:
            raw.send(frames.goaway(1, Code.NO_ERROR, "max_age"))

    path = f"{tmp_path}/{unique('r')}"
    dialer, follower = Dialer(dial_timeout=0.05), Follower()
    heard: list[Heard] = []
    lost = asyncio.Event()

    def listener(one: Heard) -> None:
        heard.append(one)
        if one.news is News.LOST:
            lost.set()

    near = Connection()
    near.CopyFrom(conn)
    near.path.index = 0
    async with Role("client", services=[dialer, follower]).serving(), serving(path, behave):
        url = f"unix://{path}"
        follower.follow(near, NextHop(url, dialer(url), Snapshot.of(near)), listener)
        await lost.wait()
    news = [one.news for one in heard]
    assert news[: news.index(News.LOST)] == [News.EVENT] * 4
    assert streams == 4
