# SPDX-License-Identifier: Apache-2.0
"""Servers that break HTTP/2 or gRPC, or use what others do not, against our dialer.

Does:  each ends the call with an error that says what happened; the next call goes on a new connection.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from nsm_sdk.api import Connection, Request, Selector
from nsm_sdk.core import Bound, Role, Running
from nsm_sdk.errors import (
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    Exhausted,
    Internal,
    NotReached,
    NsmError,
    PermissionDenied,
    Status,
    Unavailable,
)
from nsm_sdk.testing import settled
from nsm_sdk.transport import Dialer
from nsm_sdk.transport.http2 import frames, wire
from nsm_sdk.transport.http2.frames import Code
from nsm_sdk.transport.http2.headers import GOOD
from tests.run import unique
from tests.transport.raw import ANSWER, EMPTY, NONSENSE, Raw, serving

Behave = Callable[[Raw], Coroutine[Any, Any, None]]


@asynccontextmanager
async def against(folder: Path, behave: Behave, **settings: Any) -> AsyncGenerator[tuple[Running, Bound], None]:
    """Our dialer, and a server that does what the test says with each connection."""
    path = f"{folder}/{unique('r')}"
    dialer = Dialer(dial_timeout=1.0, **settings)
    async with serving(path, behave), Role("client", services=[dialer]).serving() as client:
        yield client, dialer(f"unix://{path}")


async def ask(client: Running, far: Bound, timeout: float = 10.0, **fields: Any) -> Connection:
    assert far.connection is not None
    return await far.connection.request(client.call(timeout=timeout), Request(connection=Connection(**fields)))


def answering(*answers: Callable[[Raw, int], bytes]) -> Behave:
    """Answers the calls of a connection one after the other, each with what its function makes of its stream."""

    async def behave(raw: Raw) -> None:
        for answer in answers:
            while True:
                kind, flags, stream, _ = await raw.frame()
                if kind == frames.DATA and flags & frames.END_STREAM:
                    break
            raw.send(answer(raw, stream))
        await raw.reader.read()

    return behave


def well(raw: Raw, stream: int) -> bytes:
    """A good answer."""
    return (
        raw.headers(stream, ANSWER)
        + frames.frame(frames.DATA, 0, stream, EMPTY)
        + raw.headers(stream, (("grpc-status", "0"),), end=True)
    )


def head(status: str, **more: str) -> Callable[[Raw, int], bytes]:
    """An answer of headers alone."""
    return lambda raw, stream: raw.headers(stream, ((":status", status),), end=True, **more)


def reset(code: int) -> Callable[[Raw, int], bytes]:
    return lambda raw, stream: frames.frame(frames.RST_STREAM, 0, stream, code.to_bytes(4))


OF_A_CALL: dict[str, tuple[Callable[[Raw, int], bytes], type[NsmError], str]] = {
    "HTTP 404": (head("404"), NsmError, "HTTP status 404"),
    "HTTP 503": (head("503"), Unavailable, "HTTP status 503"),
    "HTTP 403": (head("403"), PermissionDenied, "HTTP status 403"),
    "HTTP of nonsense": (head("abc"), NsmError, "HTTP status abc"),
    "a page": (
        lambda raw, stream: (
            raw.headers(stream, ((":status", "502"), ("content-type", "text/html")))
            + frames.frame(frames.DATA, frames.END_STREAM, stream, b"<html>")
        ),
        Unavailable,
        "HTTP status 502",
    ),
    "a page with a good status": (
        lambda raw, stream: raw.headers(stream, ((":status", "200"), ("content-type", "text/html"))),
        NsmError,
        "not gRPC",
    ),
    "no status": (
        lambda raw, stream: raw.headers(stream, ANSWER) + frames.frame(frames.DATA, frames.END_STREAM, stream, EMPTY),
        Internal,
        "without a status",
    ),
    "trailers without a status": (
        lambda raw, stream: raw.headers(stream, ANSWER) + raw.headers(stream, (("x", "y"),), end=True),
        Internal,
        "without a status",
    ),
    "a status of nonsense": (head("200", grpc_status="abc", grpc_message="what"), NsmError, "what"),
    "a status out of range": (head("200", grpc_status="999", grpc_message="what"), NsmError, "what"),
    "a message of escapes": (head("200", grpc_status="5", grpc_message="%C3%A4 100%% %zz%"), NsmError, "ä 100%"),
    "no message": (
        lambda raw, stream: raw.headers(stream, ANSWER) + raw.headers(stream, (("grpc-status", "0"),), end=True),
        Internal,
        "no message",
    ),
    "two messages": (
        lambda raw, stream: (
            raw.headers(stream, ANSWER)
            + frames.frame(frames.DATA, 0, stream, EMPTY * 2)
            + raw.headers(stream, (("grpc-status", "0"),), end=True)
        ),
        Internal,
        "more than one",
    ),
    "a message cut short": (
        lambda raw, stream: (
            raw.headers(stream, ANSWER) + frames.frame(frames.DATA, frames.END_STREAM, stream, b"\0\0\0\0\x09abc")
        ),
        Internal,
        "cut short",
    ),
    "a compressed message": (
        lambda raw, stream: raw.headers(stream, ANSWER) + frames.frame(frames.DATA, 0, stream, b"\x01\0\0\0\x01a"),
        Internal,
        "compressed",
    ),
    "a message that is too large": (
        lambda raw, stream: raw.headers(stream, ANSWER) + frames.frame(frames.DATA, 0, stream, b"\0\x7f\xff\xff\xff"),
        Exhausted,
        "larger than max",
    ),
    "reset: cancelled": (reset(Code.CANCEL), Cancelled, "reset"),
    "reset: calm": (reset(Code.ENHANCE_YOUR_CALM), Exhausted, "reset"),
    "reset: unknown": (reset(4711), Internal, "reset"),
}


@pytest.mark.parametrize("what", OF_A_CALL)
async def test_an_answer_that_is_none_fails_its_call_alone(what: str, tmp_path: Path) -> None:
    answer, kind, text = OF_A_CALL[what]
    async with against(tmp_path, answering(answer, well)) as (client, far):
        with pytest.raises(kind) as caught:
            await ask(client, far)
        assert text in caught.value.message
        assert caught.value.status is not Status.OK
        assert await ask(client, far) == Connection(), "the connection is good still"


OF_A_CONNECTION: dict[str, bytes] = {
    "garbage": b"\xff" * 50,
    "data before headers": frames.frame(frames.DATA, 0, 1, EMPTY),
    "a push": frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)),
    "headers for nobody": frames.frame(frames.HEADERS, 5, 3, b"\x88"),
    "headers that cannot be decoded": frames.frame(frames.HEADERS, 5, 1, b"\xff" * 20),
    "a window that is too large": frames.window_update(0, frames.LARGEST),
    "nothing": b"",
}


@pytest.mark.parametrize("what", OF_A_CONNECTION)
async def test_a_server_that_breaks_the_protocol_is_called_anew(what: str, tmp_path: Path) -> None:
    connections = 0

    async def behave(raw: Raw) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await answering(well)(raw)
            return
        await raw.until(frames.DATA)
        raw.send(OF_A_CONNECTION[what])
        if OF_A_CONNECTION[what]:
            await raw.reader.read()

    async with against(tmp_path, behave) as (client, far):
        with pytest.raises(Unavailable, match="connection failed") as caught:
            await ask(client, far)
        assert not isinstance(caught.value, NotReached), "the call has left"
        assert await ask(client, far) == Connection()
    assert connections == 2


async def test_calls_that_a_leaving_server_does_not_take_are_made_again(tmp_path: Path) -> None:
    connections = 0

    async def behave(raw: Raw) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await answering(well, well)(raw)
            return
        await raw.until(frames.DATA, 1)
        await raw.until(frames.DATA, 3)
        raw.send(frames.goaway(1, Code.NO_ERROR, "bye"))
        await asyncio.sleep(0)
        raw.send(well(raw, 1))
        # The connection ends with its last call.
        assert await raw.goaway() is Code.NO_ERROR

    async with against(tmp_path, behave) as (client, far):
        first, second = (asyncio.ensure_future(ask(client, far)) for _ in range(2))
        assert await second == Connection()
        assert await first == Connection()
        assert connections == 2
        assert await ask(client, far) == Connection()


async def test_a_call_that_is_refused_is_made_once_more(tmp_path: Path) -> None:
    refuse = reset(Code.REFUSED_STREAM)
    async with against(tmp_path, answering(refuse, well, refuse, refuse, well)) as (client, far):
        assert await ask(client, far) == Connection()
        with pytest.raises(NotReached, match="no more calls"):
            await ask(client, far)
        assert await ask(client, far) == Connection()


async def test_a_server_that_allows_one_call_at_a_time(tmp_path: Path) -> None:
    most = 0

    async def behave(raw: Raw) -> None:
        nonlocal most
        open_calls: set[int] = set()
        raw.send(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}))
        while True:
            kind, flags, stream, _ = await raw.frame()
            if kind == frames.HEADERS:
                open_calls.add(stream)
                most = max(most, len(open_calls))
            elif kind == frames.DATA and flags & frames.END_STREAM:
                open_calls.discard(stream)
                raw.send(well(raw, stream))

    async with against(tmp_path, behave) as (client, far):
        await ask(client, far)
        answers = await asyncio.gather(*(ask(client, far) for _ in range(20)))
        assert len(answers) == 20
        cancelled = [asyncio.ensure_future(ask(client, far)) for _ in range(5)]
        await asyncio.sleep(0)
        for each in cancelled[1:]:
            each.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        assert await ask(client, far) == Connection()
    assert most == 1


async def test_a_server_that_allows_no_calls(tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        raw.send(frames.settings({frames.MAX_CONCURRENT_STREAMS: 0}))
        await raw.reader.read()

    async with against(tmp_path, behave) as (client, far):
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await ask(client, far, timeout=0.3)
        assert not client.runtime.running


@pytest.mark.parametrize("room", [1, 3])
async def test_calls_that_wait_are_made_when_the_server_allows_more(room: int, tmp_path: Path) -> None:
    """A stream that stays open takes the only place."""

    async def behave(raw: Raw) -> None:
        raw.send(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}))
        await raw.until(frames.HEADERS)
        raw.send(raw.headers(1, ANSWER), frames.frame(frames.DATA, 0, 1, EMPTY))
        await allow.wait()
        raw.send(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1 + room}))
        for _ in range(3):
            kind, _, stream, _ = await raw.frame()
            while kind != frames.HEADERS:
                kind, _, stream, _ = await raw.frame()
            raw.send(well(raw, stream))
        await raw.reader.read()

    allow = asyncio.Event()
    async with against(tmp_path, behave) as (client, far):
        assert far.monitor is not None
        async with aclosing(far.monitor.watch(client.call(), Selector())) as events:
            await anext(events)
            calls = [asyncio.create_task(ask(client, far)) for _ in range(3)]
            await settled()
            allow.set()
            assert await asyncio.gather(*calls) == [Connection()] * 3


async def test_calls_that_wait_go_elsewhere_when_the_server_leaves(tmp_path: Path) -> None:
    """A stream that stays open takes the only place, and goes on after the goodbye."""
    connections: list[Raw] = []

    async def behave(raw: Raw) -> None:
        connections.append(raw)
        if len(connections) > 1:
            await answering(well)(raw)
            return
        raw.send(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}))
        await raw.until(frames.HEADERS)
        raw.send(raw.headers(1, ANSWER), frames.frame(frames.DATA, 0, 1, EMPTY))
        await leave.wait()
        raw.send(frames.goaway(1, Code.NO_ERROR))
        await raw.reader.read()

    leave = asyncio.Event()
    async with against(tmp_path, behave) as (client, far):
        assert far.monitor is not None
        async with aclosing(far.monitor.watch(client.call(), Selector())) as events:
            await anext(events)
            call = asyncio.create_task(ask(client, far))
            await settled()
            leave.set()
            assert await call == Connection()


async def test_a_message_goes_in_pieces_through_a_small_window(tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        raw.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 9}))
        got, flags = b"", 0
        while not flags & frames.END_STREAM:
            flags, payload = await raw.until(frames.DATA)
            got += payload
            raw.send(frames.window_update(1, 5000), frames.window_update(0, 5000))
        assert Request.FromString(got[5:]).connection.network_service == "x" * 100_000
        raw.send(well(raw, 1))
        await raw.reader.read()

    async with against(tmp_path, behave) as (client, far):
        assert await ask(client, far, network_service="x" * 100_000) == Connection()


async def test_a_large_answer_is_allowed_to_come_whole(tmp_path: Path) -> None:
    raw_answer = Connection(network_service="x" * 300_000).SerializeToString()

    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA)
        message = b"\0" + len(raw_answer).to_bytes(4) + raw_answer
        raw.send(raw.headers(1, ANSWER))
        window = frames.WINDOW
        while message:
            if not window:
                _, payload = await raw.until(frames.WINDOW_UPDATE, 1)
                window += frames.number(payload)
            size = min(window, frames.FRAME_SIZE, len(message))
            raw.send(frames.frame(frames.DATA, 0, 1, message[:size]))
            message, window = message[size:], window - size
        raw.send(raw.headers(1, (("grpc-status", "0"),), end=True))
        await raw.reader.read()

    async with against(tmp_path, behave) as (client, far):
        assert len((await ask(client, far)).network_service) == 300_000


@pytest.mark.parametrize(
    ("messages", "error", "text"),
    [
        (b"", Internal, "answered a health check with no message"),
        (EMPTY * 2, Internal, "answered a health check with more than one message"),
        (b"\0\0\0\0\3\xff\xff\xff", DataLoss, "no grpc.health.v1.HealthCheckResponse"),
    ],
)
async def test_a_health_check_whose_answer_is_none(
    messages: bytes, error: type[Exception], text: str, tmp_path: Path
) -> None:
    def answer(raw: Raw, stream: int) -> bytes:
        message = frames.frame(frames.DATA, 0, stream, messages)
        return raw.headers(stream, ANSWER) + message + raw.headers(stream, GOOD, end=True)

    dialer = Dialer()
    async with (
        serving(f"{tmp_path}/s", answering(answer)),
        Role("client", services=[dialer]).serving() as client,
    ):
        with pytest.raises(error, match=text):
            await dialer.healthy(f"unix://{tmp_path}/s", client.call(timeout=10))


async def test_interim_answers_are_passed_over(tmp_path: Path) -> None:
    def answer(raw: Raw, stream: int) -> bytes:
        return raw.headers(stream, ((":status", "103"),)) + well(raw, stream)

    async with against(tmp_path, answering(answer)) as (client, far):
        assert await ask(client, far) == Connection()


async def test_a_cancelled_call_is_reset(tmp_path: Path) -> None:
    told = asyncio.get_running_loop().create_future()
    began = asyncio.Event()

    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA)
        began.set()
        _, payload = await raw.until(frames.RST_STREAM, 1)
        told.set_result(frames.number(payload))

    async with against(tmp_path, behave) as (client, far):
        call = asyncio.ensure_future(ask(client, far))
        await began.wait()
        call.cancel()
        async with asyncio.timeout(10):
            assert await told == Code.CANCEL


async def test_a_silent_server_is_pinged_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PING_WAITS", 0.05)

    async def behave(raw: Raw) -> None:
        await raw.until(frames.PING)
        raw.send(frames.frame(frames.PING, frames.ACK, 0, bytes(8)))
        await raw.until(frames.PING)
        await asyncio.Event().wait()

    async with against(tmp_path, behave, ping_every=0.05) as (client, far):
        with pytest.raises(Unavailable, match="ping timeout"):
            await ask(client, far)


async def test_a_stream_that_breaks_off_says_so_after_what_came(tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA)
        raw.send(raw.headers(1, ANSWER), frames.frame(frames.DATA, 0, 1, EMPTY * 3))

    async with against(tmp_path, behave) as (client, far):
        assert far.monitor is not None
        async with aclosing(far.monitor.watch(client.call(timeout=10), Selector())) as events:
            for _ in range(3):
                await anext(events)
            with pytest.raises(Unavailable, match="connection failed"):
                await anext(events)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=NONSENSE)
def test_no_bytes_disturb_the_client(parts: list[bytes], tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA)
        raw.send(*parts)

    async def main() -> None:
        async with against(tmp_path, behave) as (client, far):
            with pytest.raises(NsmError):
                await ask(client, far)
            assert not client.runtime.running

    asyncio.run(main())


async def test_what_never_stood_was_not_reached(tmp_path: Path) -> None:
    path = f"{tmp_path}/{unique('m')}"

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    dialer = Dialer(dial_timeout=0.05)
    server = await asyncio.start_unix_server(mute, path)
    async with Role("client", services=[dialer]).serving() as client:
        for url in (f"unix://{path}", f"unix://{tmp_path}/nobody"):
            with pytest.raises(NotReached, match="nobody answers"):
                await ask(client, dialer(url))
        await settled()
        assert not client.runtime.running
    server.close()


async def test_a_dialer_that_stops_breaks_what_runs_on_former_connections_too(tmp_path: Path) -> None:
    async def behave(raw: Raw) -> None:
        await raw.until(frames.DATA, 1)
        raw.send(frames.goaway(1, Code.NO_ERROR))
        await raw.reader.read()

    path = f"{tmp_path}/{unique('r')}"
    dialer = Dialer(dial_timeout=1.0)
    async with serving(path, behave), Role("client", services=[dialer]).serving() as client:
        calls = []
        for _ in range(3):
            calls.append(asyncio.ensure_future(ask(client, dialer(f"unix://{path}"))))
            carrier = dialer._peer(f"unix://{path}")[0]
            while carrier.active < len(calls) or carrier._connector.connection.usable:  # type: ignore[union-attr]
                await settled()
                await asyncio.sleep(0)
        await dialer.stop()
        for call in calls:
            with pytest.raises(Unavailable, match="connection"):
                await call
