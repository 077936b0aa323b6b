# SPDX-License-Identifier: Apache-2.0
"""Callers that break HTTP/2, or use what others do not, against our listener.

Does:  every violation ends the call or the connection with the right code, and nothing else; nothing is left running.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import hpack
import pytest
from hypothesis import HealthCheck, given, settings

from nsm_sdk import api
from nsm_sdk.api import Connection, ConnectionEvent, Request, Selector
from nsm_sdk.core import Call
from nsm_sdk.testing import settled
from nsm_sdk.transport.http2 import frames, server, wire
from nsm_sdk.transport.http2.connection import CALM
from nsm_sdk.transport.http2.frames import Code
from nsm_sdk.transport.http2.headers import Fixed, encode
from tests.transport.adapters import Pair, address, listening, nothing, pair, role
from tests.transport.raw import ANSWER, CALL, EMPTY, NONSENSE, Raw, calling

DATA = frames.frame(frames.DATA, frames.END_STREAM, 1, EMPTY)
MONITOR = tuple(
    (key, "/connection.MonitorConnection/MonitorConnections" if key == ":path" else old) for key, old in CALL
)


def numbered(kind: int, stream: int, number: int) -> bytes:
    return frames.frame(kind, 0, stream, number.to_bytes(4))


async def none_running(p: Pair, but: int = 0) -> None:
    """Wait until the server has no more calls than these."""
    while p.server.runtime.calls > but:
        await settled()


VIOLATIONS = {
    "a frame that is too large": (frames.HEAD.pack(64, 1, 0, 0, 1), Code.FRAME_SIZE_ERROR),
    "data for a stream that was never opened": (DATA, Code.PROTOCOL_ERROR),
    "a reset of a stream that was never opened": (numbered(frames.RST_STREAM, 1, 8), Code.PROTOCOL_ERROR),
    "a reset that is no number": (frames.frame(frames.RST_STREAM, 0, 1, b"12345"), Code.FRAME_SIZE_ERROR),
    "a continuation of nothing": (frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1), Code.PROTOCOL_ERROR),
    "headers without a stream": (frames.frame(frames.HEADERS, frames.END_HEADERS, 0), Code.PROTOCOL_ERROR),
    "headers that cannot be decoded": (
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff" * 20),
        Code.COMPRESSION_ERROR,
    ),
    "an index out of the table": (frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xfe"), Code.COMPRESSION_ERROR),
    "a header block that is interrupted": (
        frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.PING, 0, 0, bytes(8)),
        Code.PROTOCOL_ERROR,
    ),
    "padding longer than the frame": (
        frames.frame(frames.HEADERS, frames.PADDED | 4, 1, b"\x09ab"),
        Code.PROTOCOL_ERROR,
    ),
    "padding of nothing": (frames.frame(frames.HEADERS, frames.PADDED | 4, 1, b""), Code.FRAME_SIZE_ERROR),
    "continuations without end": (
        frames.frame(frames.HEADERS, 0, 1, bytes(16_000)) + frames.frame(frames.CONTINUATION, 0, 1, bytes(16_000)) * 80,
        Code.ENHANCE_YOUR_CALM,
    ),
    "continuations of nothing": (
        frames.frame(frames.HEADERS, 0, 1, b"a") + frames.frame(frames.CONTINUATION, 0, 1, b""),
        Code.ENHANCE_YOUR_CALM,
    ),
    "a bomb of headers": (
        # One entry of 4,000 bytes in the table, then 1,000 times.
        frames.header_frames(1, b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 1000, 0, frames.FRAME_SIZE),
        Code.ENHANCE_YOUR_CALM,
    ),
    "a window that grows by nothing": (numbered(frames.WINDOW_UPDATE, 0, 0), Code.PROTOCOL_ERROR),
    "a window that is too large": (numbered(frames.WINDOW_UPDATE, 0, frames.LARGEST), Code.FLOW_CONTROL_ERROR),
    "settings that are cut short": (frames.frame(frames.SETTINGS, 0, 0, b"123"), Code.FRAME_SIZE_ERROR),
    "settings of a stream": (frames.frame(frames.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "a receipt with settings": (frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    "a frame size below the least": (frames.settings({frames.MAX_FRAME_SIZE: 1}), Code.PROTOCOL_ERROR),
    "an initial window above the largest": (
        frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}),
        Code.FLOW_CONTROL_ERROR,
    ),
    "push that is neither on nor off": (frames.settings({frames.ENABLE_PUSH: 7}), Code.PROTOCOL_ERROR),
    "a push": (frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), Code.PROTOCOL_ERROR),
    "a ping of seven bytes": (frames.frame(frames.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a ping of a stream": (frames.frame(frames.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "an even number": (frames.header_frames(2, encode(CALL), 0, frames.FRAME_SIZE), Code.PROTOCOL_ERROR),
    "a number lower than the last": (
        frames.header_frames(5, encode(CALL), 0, frames.FRAME_SIZE)
        + frames.header_frames(3, encode(CALL), 0, frames.FRAME_SIZE),
        Code.PROTOCOL_ERROR,
    ),
    "a GOAWAY of a stream": (
        frames.frame(frames.GOAWAY, 0, 1, bytes(8)),
        Code.PROTOCOL_ERROR,
    ),
    "a priority without a stream": (frames.frame(frames.PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    "data after a reset": (
        frames.header_frames(1, encode(CALL), 0, frames.FRAME_SIZE) + frames.reset(1, Code.CANCEL) + DATA,
        Code.STREAM_CLOSED,
    ),
    "a GOAWAY that is cut short": (frames.frame(frames.GOAWAY, 0, 0, bytes(4)), Code.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("what", VIOLATIONS)
async def test_a_caller_that_breaks_the_protocol_ends_its_own_connection(what: str, tmp_path: Path) -> None:
    sent, code = VIOLATIONS[what]
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        raw.send(sent)
        async with asyncio.timeout(10):
            assert await raw.goaway() is code
        assert await p.request() == Connection(), "one caller's defect disturbs the others"


ON_A_STREAM: dict[str, tuple[Callable[[Raw], bytes], Code]] = {
    "a priority of a wrong length": (
        lambda raw: raw.headers(1) + frames.frame(frames.PRIORITY, 0, 1, bytes(4)),
        Code.FRAME_SIZE_ERROR,
    ),
    "a stream that depends on itself": (
        lambda raw: raw.headers(1) + frames.frame(frames.PRIORITY, 0, 1, b"\0\0\0\x01\0"),
        Code.PROTOCOL_ERROR,
    ),
    "headers in the middle": (lambda raw: raw.headers(1) + raw.headers(1), Code.PROTOCOL_ERROR),
    "data after the end": (lambda raw: raw.headers(1, hang="1") + DATA + DATA, Code.STREAM_CLOSED),
    "trailers after the end": (
        lambda raw: raw.headers(1, hang="1") + DATA + raw.headers(1, (("x", "y"),), end=True),
        Code.STREAM_CLOSED,
    ),
    "a stream's window that grows too large": (
        lambda raw: raw.headers(1) + numbered(frames.WINDOW_UPDATE, 1, frames.LARGEST),
        Code.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("what", ON_A_STREAM)
async def test_a_call_that_breaks_the_protocol_is_reset_alone(what: str, tmp_path: Path) -> None:
    async def hang(call: Call, request: Request) -> None:
        if call.metadata.get("hang"):
            await asyncio.Event().wait()

    sent, code = ON_A_STREAM[what]
    async with pair("unix", tmp_path, hang) as p, calling(p.url) as raw:
        raw.send(sent(raw))
        async with asyncio.timeout(10):
            _, payload = await raw.until(frames.RST_STREAM)
            assert frames.number(payload) == code
            await none_running(p)
            raw.send(raw.headers(9), frames.frame(frames.DATA, frames.END_STREAM, 9, EMPTY))
            assert await raw.pairs(9) == dict(ANSWER)
            assert (await raw.pairs(9))["grpc-status"] == "0"


REQUEST = dict(CALL)


def but(**changed: str | None) -> Fixed:
    """The headers of a call, some of them another value or none."""
    new = {key.replace("_", "-"): value for key, value in changed.items()}
    kept = {**REQUEST, **{f":{key}" if f":{key}" in REQUEST else key: value for key, value in new.items()}}
    return tuple((key, value) for key, value in kept.items() if value is not None)


MALFORMED: dict[str, Fixed] = {
    "an upper case name": (*CALL, ("X-Name", "a")),
    "a name with a space": (*CALL, ("x name", "a")),
    "an empty name": (*CALL, ("", "a")),
    "an unknown pseudo-header": ((":other", "a"), *CALL),
    "a pseudo-header of responses": ((":status", "200"), *CALL),
    "a pseudo-header after others": (*CALL[1:], CALL[0]),
    "a pseudo-header in the middle": (*CALL[:2], ("x", "y"), *CALL[2:]),
    **{f"two {name}": ((name, value), *CALL) for name, value in CALL[:4]},
    "no method": but(method=None),
    "no scheme": but(scheme=None),
    "no path": but(path=None),
    "an empty path": but(path=""),
    "an empty method": but(method=""),
    "a value with a line": (*CALL, ("x", "a\nb")),
    "a value with a zero": (*CALL, ("x", "a\0b")),
    "a TE of another kind": but(te="gzip"),
    **{
        f"a header of a connection: {name}": (*CALL, (name, "a"))
        for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")
    },
    "a length that is none": (*CALL, ("content-length", "a")),
    "a length that is another": (*CALL, ("content-length", "4")),
}


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "hpack"])
@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_headers_are_refused_alone(what: str, plain: bool, tmp_path: Path) -> None:
    headers = MALFORMED[what]
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        block = encode(headers) if plain else hpack.Encoder().encode(headers)
        raw.send(frames.header_frames(1, block, 0, frames.FRAME_SIZE), DATA)
        async with asyncio.timeout(10):
            _, payload = await raw.until(frames.RST_STREAM, 1)
            assert frames.number(payload) == Code.PROTOCOL_ERROR
            raw.send(raw.headers(3), frames.frame(frames.DATA, frames.END_STREAM, 3, EMPTY))
            assert await raw.pairs(3) == dict(ANSWER)


@pytest.mark.parametrize("trailers", [CALL[:1], (("X", "y"),), ((":status", "200"),)])
async def test_malformed_trailers_are_refused_alone(trailers: Fixed, tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        raw.send(raw.headers(1), raw.headers(1, trailers, end=True))
        async with asyncio.timeout(10):
            _, payload = await raw.until(frames.RST_STREAM, 1)
            assert frames.number(payload) == Code.PROTOCOL_ERROR


async def test_a_connection_without_authority_and_with_a_length_is_taken(tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        raw.send(raw.headers(1, (*but(authority=None), ("content-length", "5"))), DATA)
        assert await raw.pairs(1) == dict(ANSWER)


# --- budgets ---------------------------------------------------------------------------------------------------------


def taken_back(number: int) -> bytes:
    """A call that is reset at once."""
    stream = 2 * number + 1
    return frames.header_frames(stream, encode(CALL), 0, frames.FRAME_SIZE) + frames.reset(stream, Code.CANCEL)


CHEAP: dict[str, Callable[[int], bytes]] = {
    "calls that are taken back": taken_back,
    "calls that are taken back with their message": lambda number: (
        frames.header_frames(2 * number + 1, encode(CALL), 0, frames.FRAME_SIZE)
        + frames.frame(frames.DATA, frames.END_STREAM, 2 * number + 1, EMPTY)
        + frames.reset(2 * number + 1, Code.CANCEL)
    ),
    "malformed calls": lambda number: frames.header_frames(2 * number + 1, b"\x83", 0, frames.FRAME_SIZE),
    "settings": lambda number: frames.settings({}),
    "receipts of settings": lambda number: frames.frame(frames.SETTINGS, frames.ACK, 0),
    "pings": lambda number: frames.frame(frames.PING, 0, 0, bytes(8)),
    "answers to pings": lambda number: frames.frame(frames.PING, frames.ACK, 0, bytes(8)),
    "priorities": lambda number: frames.frame(frames.PRIORITY, 0, 2 * number + 1, bytes(5)),
    "frames of an unknown kind": lambda number: frames.frame(77, 0, 0),
    "windows": lambda number: numbered(frames.WINDOW_UPDATE, 0, 1),
    "goodbyes": lambda number: frames.goaway(0, Code.NO_ERROR),
    "empty data": lambda number: (
        frames.frame(frames.DATA, 0, 1) if number else frames.header_frames(1, encode(CALL), 0, frames.FRAME_SIZE)
    ),
}


@pytest.mark.parametrize("what", CHEAP)
async def test_what_costs_and_asks_for_nothing_has_a_budget(what: str, tmp_path: Path) -> None:
    """One caller sends without end what makes work; it is hung up on, and nobody else notices."""
    make = CHEAP[what]
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        # More than the budget, and than what is given back meanwhile.
        raw.send(*(make(number) for number in range(4 * CALM)))
        async with asyncio.timeout(60):
            assert await raw.goaway() is Code.ENHANCE_YOUR_CALM
        await none_running(p)
        assert await p.request() == Connection()


async def test_calls_that_are_answered_use_up_no_budget(tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        for number in range(300):
            stream = 2 * number + 1
            raw.send(frames.frame(frames.PING, 0, 0, bytes(8)), numbered(frames.WINDOW_UPDATE, 0, 8))
            raw.send(raw.headers(stream), frames.frame(frames.DATA, frames.END_STREAM, stream, EMPTY))
            assert await raw.pairs(stream) == dict(ANSWER)
            assert (await raw.pairs(stream))["grpc-status"] == "0"
        assert accepted()[-1]._budget > CALM - 50


async def test_a_caller_that_sends_more_than_its_handler_reads(tmp_path: Path) -> None:
    async def deaf(call: Call, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        await asyncio.Event().wait()
        yield api.PrefixResponse()

    path = tuple((key, api.MANAGE_PREFIXES.path if key == ":path" else old) for key, old in CALL)
    message = (10_000).to_bytes(5) + bytes(10_000)
    async with pair("unix", tmp_path, extra={api.MANAGE_PREFIXES: deaf}) as p, calling(p.url) as raw:
        raw.send(raw.headers(1, path), frames.frame(frames.DATA, 0, 1, message) * 7)
        async with asyncio.timeout(10):
            assert await raw.goaway() is Code.FLOW_CONTROL_ERROR
            await none_running(p)


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", frames.PREFACE[:-1] + b"x", bytes(100)])
async def test_what_is_no_http2_is_hung_up_on(hello: bytes, tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p:
        raw = Raw(*await asyncio.open_unix_connection(p.url.removeprefix("unix://")))
        raw.send(hello)
        async with asyncio.timeout(10):
            while True:
                try:
                    if not await raw.reader.read(1000):
                        break
                except ConnectionResetError:
                    break
        await raw.close()
        assert await p.request() == Connection()


async def test_a_preface_that_comes_byte_by_byte(tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p:
        raw = Raw(*await asyncio.open_unix_connection(p.url.removeprefix("unix://")))
        whole = frames.PREFACE + frames.settings({}) + raw.headers(1) + DATA
        for at in range(len(whole)):
            raw.send(whole[at : at + 1])
            await raw.writer.drain()
            await asyncio.sleep(0)
        assert (await raw.pairs(1))[":status"] == "200"
        assert (await raw.pairs(1))["grpc-status"] == "0"
        await raw.close()


async def test_padding_priorities_and_unknown_frames_are_understood(tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        block = encode(CALL)
        raw.send(
            frames.frame(frames.PRIORITY, 0, 1, bytes(5)),
            frames.frame(0x42, 0xFF, 7, b"whatever"),
            frames.frame(
                frames.HEADERS, frames.PADDED | frames.PRIORITISED, 1, b"\x03" + bytes(5) + block[:10] + b"pad"
            ),
            frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[10:]),
            frames.frame(frames.DATA, frames.PADDED, 1, b"\x02" + EMPTY[:3] + b"pa"),
            frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x00" + EMPTY[3:]),
            frames.frame(frames.PING, 0, 0, b"12345678"),
        )
        flags, payload = await raw.until(frames.PING)
        assert (flags, payload) == (frames.ACK, b"12345678")
        assert (await raw.pairs(1))[":status"] == "200"
        assert (await raw.pairs(1))["grpc-status"] == "0"


@pytest.mark.parametrize(
    "fixed",
    [
        ((":method", "GET"), *CALL[1:]),
        tuple(item for item in CALL if item[0] != "content-type"),
        (*CALL[:-1], ("content-type", "text/html")),
    ],
)
async def test_what_is_no_grpc_is_answered_in_http(fixed: Fixed, tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        raw.send(raw.headers(1, fixed, end=True))
        assert (await raw.pairs(1))[":status"] == "415"
        flags, body = await raw.until(frames.DATA, 1)
        assert flags & frames.END_STREAM
        assert b"application/grpc" in body


@pytest.mark.parametrize(
    ("message", "more", "status"),
    [
        (EMPTY, {"grpc_timeout": "soon"}, "3"),
        (EMPTY, {"grpc_timeout": "999999999S"}, "3"),
        (EMPTY, {"grpc_timeout": "0m"}, "4"),
        (b"\x01" + EMPTY[1:], {}, "12"),
        (EMPTY[:3], {}, "12"),
        (b"\0\0\0\0\x09abc", {}, "12"),
        (b"\0\x7f\xff\xff\xff", {}, "8"),
        (EMPTY + EMPTY, {}, "3"),
        (b"", {}, "3"),
        (b"\0\0\0\0\x02\xff\xff", {}, "3"),
        (EMPTY, {"big": "x" * 270_000}, "8"),
    ],
)
async def test_a_call_that_cannot_be_taken_is_refused_alone(
    message: bytes, more: dict[str, Any], status: str, tmp_path: Path
) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        raw.send(raw.headers(1, **more), frames.frame(frames.DATA, frames.END_STREAM, 1, message))
        async with asyncio.timeout(10):
            while (found := await raw.pairs(1)).get("grpc-status") is None:
                pass
        assert found["grpc-status"] == status, found
        raw.send(raw.headers(3), frames.frame(frames.DATA, frames.END_STREAM, 3, EMPTY))
        assert await raw.pairs(3) == dict(ANSWER)
        assert (await raw.pairs(3))["grpc-status"] == "0"


async def test_calls_that_are_reset_at_once_leave_nothing(tmp_path: Path) -> None:
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        for stream in range(1, 4001, 2):
            raw.send(raw.headers(stream), frames.frame(frames.DATA, frames.END_STREAM, stream, EMPTY))
            raw.send(numbered(frames.RST_STREAM, stream, Code.CANCEL))
        raw.send(raw.headers(4001), frames.frame(frames.DATA, frames.END_STREAM, 4001, EMPTY))
        async with asyncio.timeout(20):
            assert (await raw.pairs(4001))[":status"] == "200"
        assert p.server.runtime.calls == 0


async def test_more_calls_than_are_allowed_are_refused_until_some_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_STREAMS", 3)

    async def hang(call: Call, request: Request) -> None:
        await asyncio.Event().wait()

    async with pair("unix", tmp_path, hang) as p, calling(p.url) as raw:
        for stream in (1, 3, 5, 7):
            raw.send(raw.headers(stream), frames.frame(frames.DATA, frames.END_STREAM, stream, EMPTY))
        async with asyncio.timeout(10):
            _, payload = await raw.until(frames.RST_STREAM, 7)
            assert frames.number(payload) == Code.REFUSED_STREAM
            raw.send(numbered(frames.RST_STREAM, 1, Code.CANCEL))
            await none_running(p, 2)
            raw.send(raw.headers(9, grpc_timeout="0m"), frames.frame(frames.DATA, frames.END_STREAM, 9, EMPTY))
            assert (await raw.pairs(9))["grpc-status"] == "4"


async def test_a_caller_that_never_reads_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "UNWRITTEN", 2 << 20)

    async def large(call: Call, request: Request) -> Connection:
        return Connection(network_service="x" * (1 << 20))

    async with pair("unix", tmp_path, large) as p, calling(p.url) as raw:
        raw.send(frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST}))
        raw.send(numbered(frames.WINDOW_UPDATE, 0, frames.LARGEST - frames.WINDOW))
        for stream in range(1, 41, 2):
            raw.send(raw.headers(stream), frames.frame(frames.DATA, frames.END_STREAM, stream, EMPTY))
        async with asyncio.timeout(20):
            while not raw.writer.transport.is_closing():
                # It learns of it by writing; it never reads.
                raw.send(frames.frame(frames.PING, 0, 0, bytes(8)))
                await asyncio.sleep(0)
        assert await p.request() is not None


async def test_a_small_window_makes_small_pieces_and_one_that_shrinks_stops_them(tmp_path: Path) -> None:
    async def answer(call: Call, request: Request) -> Connection:
        return Connection(id="x" * 100)

    async with pair("unix", tmp_path, answer) as p, calling(p.url) as raw:
        raw.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
        raw.send(raw.headers(1), DATA)
        assert await raw.pairs(1) == dict(ANSWER)
        flags, first = await raw.until(frames.DATA, 1)
        assert (flags, len(first)) == (0, 10)
        # Below zero: nothing may come until it is above again.
        raw.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}), numbered(frames.WINDOW_UPDATE, 1, 10))
        raw.send(frames.frame(frames.PING, 0, 0, bytes(8)))
        await raw.until(frames.PING)
        raw.send(numbered(frames.WINDOW_UPDATE, 1, 7))
        _, second = await raw.until(frames.DATA, 1)
        assert len(second) == 7
        raw.send(numbered(frames.WINDOW_UPDATE, 1, 1000))
        _, rest = await raw.until(frames.DATA, 1)
        assert Connection.FromString((first + second + rest)[5:]).id == "x" * 100
        assert (await raw.pairs(1))["grpc-status"] == "0"


async def test_a_stream_that_nobody_reads_does_not_pile_up(tmp_path: Path) -> None:
    made = 0

    async def watch(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        nonlocal made
        while True:
            made += 1
            event = ConnectionEvent()
            event.connections["x"].id = "x" * 1000
            yield event

    async with pair("unix", tmp_path, watch=watch) as p, calling(p.url) as raw:
        raw.send(raw.headers(1, MONITOR), frames.frame(frames.DATA, frames.END_STREAM, 1, EMPTY))
        async with asyncio.timeout(10):
            got = 0
            while got < frames.WINDOW:
                _, payload = await raw.until(frames.DATA, 1)
                got += len(payload)
            raw.send(frames.frame(frames.PING, 0, 0, bytes(8)))
            await raw.until(frames.PING)
        assert got == frames.WINDOW
        assert made < 70
        raw.send(numbered(frames.RST_STREAM, 1, Code.CANCEL))
        async with asyncio.timeout(10):
            await none_running(p)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=NONSENSE)
def test_no_bytes_disturb_the_server(parts: list[bytes], tmp_path: Path) -> None:
    async def main() -> None:
        async with pair("unix", tmp_path, nothing) as p:
            async with calling(p.url) as raw:
                raw.send(raw.headers(1), *parts)
                raw.writer.write_eof()
                async with asyncio.timeout(10):
                    while await raw.reader.read(65536):
                        pass
            assert await p.request() == Connection()
            assert p.server.runtime.calls == 0

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"", frames.PREFACE[:5], frames.PREFACE])
async def test_a_caller_that_says_nothing_more_is_hung_up_on(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PING_EVERY", 0.05)
    monkeypatch.setattr(wire, "PING_WAITS", 0.05)
    async with pair("unix", tmp_path) as p:
        raw = Raw(*await asyncio.open_unix_connection(p.url.removeprefix("unix://")))
        raw.send(said)
        async with asyncio.timeout(10):
            assert b"nsm_sdk!" in await raw.reader.read()
        await raw.close()


async def test_a_caller_that_answers_pings_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PING_EVERY", 0.05)
    monkeypatch.setattr(wire, "PING_WAITS", 0.2)
    async with pair("unix", tmp_path) as p, calling(p.url) as raw:
        async with asyncio.timeout(10):
            for _ in range(3):
                _, payload = await raw.until(frames.PING)
                raw.send(frames.frame(frames.PING, frames.ACK, 0, payload))
        raw.send(raw.headers(1), DATA)
        assert (await raw.pairs(1))[":status"] == "200"


async def test_empty_messages_that_nobody_reads_do_not_pile_up(tmp_path: Path) -> None:
    async def deaf(call: Call, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        await asyncio.Event().wait()
        yield api.PrefixResponse()

    path = tuple((key, api.MANAGE_PREFIXES.path if key == ":path" else old) for key, old in CALL)
    async with pair("unix", tmp_path, extra={api.MANAGE_PREFIXES: deaf}) as p, calling(p.url) as raw:
        raw.send(raw.headers(1, path), frames.frame(frames.DATA, 0, 1, EMPTY * 3000) * 5)
        async with asyncio.timeout(10):
            assert await raw.goaway() is Code.FLOW_CONTROL_ERROR
            await none_running(p)


async def test_nothing_is_sent_on_a_stream_after_its_end(tmp_path: Path) -> None:
    """The handler gets a message in the same moment in which the next one ends the call."""

    async def same(call: Call, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        async for _ in requests:
            yield api.PrefixResponse()

    path = tuple((key, api.MANAGE_PREFIXES.path if key == ":path" else old) for key, old in CALL)
    async with pair("unix", tmp_path, extra={api.MANAGE_PREFIXES: same}) as p, calling(p.url) as raw:
        raw.send(raw.headers(1, path), frames.frame(frames.DATA, 0, 1, EMPTY))
        await raw.until(frames.DATA, 1)
        raw.send(frames.frame(frames.DATA, 0, 1, EMPTY + b"\1" + EMPTY[1:]))
        assert (await raw.pairs(1))["grpc-status"] == "12"
        raw.send(frames.frame(frames.PING, 0, 0, bytes(8)))
        kinds = [(await raw.frame())[0]]
        while kinds[-1] != frames.PING:
            kinds.append((await raw.frame())[0])
        assert not {frames.DATA, frames.HEADERS}.intersection(kinds)
        await none_running(p)


async def test_calls_that_come_after_the_goodbye_disturb_nobody(tmp_path: Path) -> None:
    began, allow = asyncio.Event(), asyncio.Event()

    async def slow(call: Call, request: Request) -> None:
        began.set()
        await allow.wait()

    made, _ = role(slow)
    at = listening("unix", address("unix", tmp_path))
    async with made.serving(listen=[at], drain=10.0) as running, calling(running.urls[0]) as raw:
        raw.send(raw.headers(1), DATA)
        await began.wait()
        for connection in accepted():
            connection.leave()
        last, code, _ = frames.read_goaway((await raw.until(frames.GOAWAY))[1])
        assert (last, code) == (1, Code.NO_ERROR)
        raw.send(raw.headers(3), frames.frame(frames.DATA, frames.END_STREAM, 3, EMPTY))
        raw.send(frames.frame(frames.PING, 0, 0, bytes(8)))
        await raw.until(frames.PING)
        allow.set()
        assert (await raw.pairs(1))[":status"] == "200"
        assert (await raw.pairs(1))["grpc-status"] == "0"


async def test_an_error_waits_for_the_message_that_has_begun_and_for_no_other(tmp_path: Path) -> None:
    async def watch(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        for number in range(2):
            event = ConnectionEvent()
            event.connections[str(number)].id = "x" * 100
            yield event

    async with pair("unix", tmp_path, watch=watch) as p, calling(p.url) as raw:
        raw.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
        raw.send(raw.headers(1, MONITOR), DATA)
        _, first = await raw.until(frames.DATA, 1)
        async with asyncio.timeout(10):
            await p.server.runtime.drain(5.0)
        raw.send(numbered(frames.WINDOW_UPDATE, 1, 1000))
        _, rest = await raw.until(frames.DATA, 1)
        assert len(first) == 10
        assert list(ConnectionEvent.FromString((first + rest)[5:]).connections) == ["0"]
        assert (await raw.pairs(1))["grpc-status"] == "14"


async def test_small_frames_are_sent_without_delay(tmp_path: Path) -> None:
    async with pair("tcp", tmp_path) as p:
        await p.request()
        ours = accepted()
        assert ours
        for connection in ours:
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def accepted() -> list[server.ServerConnection]:
    """The connections of this process's listeners."""
    return [one for one in gc.get_objects() if isinstance(one, server.ServerConnection) and not one.closed]
