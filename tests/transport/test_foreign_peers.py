# SPDX-License-Identifier: Apache-2.0
"""gRPC peers that are not ours, and applications with a server of their own.

Does:  plain `grpc.aio` clients against our listener, our dialer against plain servers, `mount`.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from nsm_sdk.api import (
    METHODS,
    MONITOR_CONNECTIONS,
    NETWORK_SERVICE_REQUEST,
    NSE_REGISTER,
    Connection,
    ConnectionEvent,
    NetworkServiceEndpoint,
    Request,
    Selector,
)
from nsm_sdk.core import Bound, Call, Role, Running, Served
from nsm_sdk.errors import (
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    NsmError,
    Status,
    Unavailable,
    Unimplemented,
    from_status,
)
from nsm_sdk.transport import Dialer, mount
from nsm_sdk.transport.status import TRAIL_KEY
from tests.run import unique
from tests.transport.adapters import both, dialing, nothing, pair, role

Behaviour = Callable[[bytes, Any], Any]


class Plain(grpc.GenericRpcHandler):
    """A server that knows nothing of NSM but the names of methods."""

    def __init__(self, unary: dict[str, Behaviour], stream: dict[str, Behaviour] | None = None) -> None:
        self._unary = unary
        self._stream = stream or {}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method in self._unary:
            return grpc.unary_unary_rpc_method_handler(self._unary[details.method])
        if details.method in self._stream:
            return grpc.unary_stream_rpc_method_handler(self._stream[details.method])
        return None


@asynccontextmanager
async def foreign(adapter: str, folder: Path, plain: Plain) -> AsyncGenerator[tuple[Running, Bound, str], None]:
    """Our dialer, and a plain server."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((plain,))
    url = f"unix://{folder}/{unique('f')}"
    server.add_insecure_port(url.replace("unix://", "unix:"))
    await server.start()
    dialer = dialing(adapter, dial_timeout=0.5)
    try:
        async with Role("client", services=[dialer]).serving() as client:
            yield client, dialer(url), url
    finally:
        await server.stop(None)


async def ask(client: Running, far: Bound, timeout: float = 10.0) -> Connection:
    assert far.connection is not None
    return await far.connection.request(client.call(timeout=timeout), Request())


@asynccontextmanager
async def channel(url: str, *options: tuple[str, str]) -> AsyncGenerator[grpc.aio.Channel, None]:
    async with grpc.aio.insecure_channel(url.replace("unix://", "unix:"), options) as opened:
        yield opened


async def status_of(rpc: Any) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """How a plain client's call ends, with the trailer parsed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc
    error = caught.value
    trailers = {key: value for key, value in error.trailing_metadata() or ()}  # noqa: C416  Metadata is no mapping here
    return error.code(), error.details() or "", json.loads(trailers.get(TRAIL_KEY, b"{}"))


# --- our dialer, their server ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK], ids=lambda s: s.name)
@both
async def test_a_foreign_status_keeps_code_and_text(adapter: str, status: Status, tmp_path: Path) -> None:
    text = "rpc error: code = Unknown desc = no candidates found"
    code = next(code for code in grpc.StatusCode if code.value[0] == status)

    async def fail(raw: bytes, context: Any) -> bytes:
        await context.abort(code, text)
        return b""

    async with foreign(adapter, tmp_path, Plain({NETWORK_SERVICE_REQUEST.path: fail})) as (client, far, url):
        with pytest.raises(NsmError) as caught:
            await ask(client, far)
    error = caught.value
    assert (error.status, error.message, type(error)) == (status, text, type(from_status(status, "")))
    assert error.hop == url


@both
async def test_a_method_that_the_peer_lacks(adapter: str, tmp_path: Path) -> None:
    async with foreign(adapter, tmp_path, Plain({})) as (client, far, _):
        with pytest.raises(Unimplemented):
            await ask(client, far)
        assert far.monitor is not None
        with pytest.raises(Unimplemented):
            async for _ in far.monitor.watch(client.call(timeout=10), Selector()):
                pass


@both
async def test_an_answer_that_cannot_be_decoded(adapter: str, tmp_path: Path) -> None:
    async def garbage(raw: bytes, context: Any) -> bytes:
        return b"\xff\xff\xff"

    async def stream(raw: bytes, context: Any) -> AsyncGenerator[bytes, None]:
        yield b""
        yield b"\xff"

    plain = Plain({NETWORK_SERVICE_REQUEST.path: garbage}, {MONITOR_CONNECTIONS.path: stream})
    async with foreign(adapter, tmp_path, plain) as (client, far, url):
        with pytest.raises(DataLoss, match=r"no connection\.Connection") as caught:
            await ask(client, far)
        assert url in caught.value.message
        assert far.monitor is not None
        async with aclosing(far.monitor.watch(client.call(timeout=10), Selector())) as events:
            assert await anext(events) == ConnectionEvent()
            with pytest.raises(DataLoss):
                await anext(events)


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"hop":1,"trail":{}}',
        b'{"trail":[1,null]}',
        b"[" * 5000,
        b"\xff",
        b'"' + b"x" * 9000,
    ],
    ids=range(9),
)
@both
async def test_a_trailer_of_nonsense_does_no_harm(adapter: str, trailer: bytes, tmp_path: Path) -> None:
    async def fail(raw: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "text", ((TRAIL_KEY, trailer),))
        return b""

    async with foreign(adapter, tmp_path, Plain({NETWORK_SERVICE_REQUEST.path: fail})) as (client, far, url):
        with pytest.raises(NotFound, match="text") as caught:
            await ask(client, far)
        assert (caught.value.hop, caught.value.element, caught.value.trail) == (url, "", ())


@both
async def test_a_peer_that_hangs(adapter: str, tmp_path: Path) -> None:
    async def hang(raw: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with foreign(adapter, tmp_path, Plain({NETWORK_SERVICE_REQUEST.path: hang})) as (client, far, url):
        with pytest.raises(DeadlineExceeded, match="did not answer Request in time") as caught:
            await ask(client, far, timeout=0.2)
        assert url in caught.value.message
        assert caught.value.hop == "client"


@both
async def test_a_peer_that_speaks_no_grpc(adapter: str, tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    path = tmp_path / "babble"
    server = await asyncio.start_unix_server(babble, path)
    dialer = dialing(adapter, dial_timeout=0.3)
    async with server, Role("client", services=[dialer]).serving() as client:
        with pytest.raises(Unavailable):
            await ask(client, dialer(f"unix://{path}"))


# --- our listener, their client --------------------------------------------------------------------------------------


@both
async def test_a_plain_client_reads_plain_text_and_may_read_the_trailer(adapter: str, tmp_path: Path) -> None:
    async def do(call: Call, request: Request) -> None:
        raise NotFound("network service unknown is not found", hint="ask for another")

    async with pair(adapter, tmp_path, do) as p, channel(p.url) as plain:
        code, text, trailer = await status_of(plain.unary_unary(NETWORK_SERVICE_REQUEST.path)(b"", timeout=10))  # type: ignore[arg-type]
    assert code is grpc.StatusCode.NOT_FOUND
    assert text == "network service unknown is not found"
    assert trailer == {"hop": "server", "element": "Doing.request", "hint": "ask for another"}


@both
async def test_a_plain_client_with_retries_goes_by_what_an_overrun_hop_says(adapter: str, tmp_path: Path) -> None:
    refusals = [Unavailable("overrun", retry_after=0.01)]

    async def do(call: Call, request: Request) -> Connection:
        if refusals:
            raise refusals.pop()
        return request.connection

    # Left to itself it would wait longer than the call lasts.
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "300s",
        "maxBackoff": "300s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    async with pair(adapter, tmp_path, do) as p, channel(p.url, ("grpc.service_config", config)) as plain:
        await plain.unary_unary(NETWORK_SERVICE_REQUEST.path)(b"", timeout=60)  # type: ignore[arg-type]
    assert not refusals


@both
async def test_a_message_that_cannot_be_decoded_is_refused_before_any_element(adapter: str, tmp_path: Path) -> None:
    asked: list[Request] = []

    async def do(call: Call, request: Request) -> None:
        asked.append(request)

    async with pair(adapter, tmp_path, do, families=True) as p, channel(p.url) as plain:
        for method in METHODS.values():
            if method.service == "ipam.IPAM":
                continue
            stub: Any = plain.stream_stream(method.path)
            call = stub(iter([b"\xff\xff"]), timeout=10)
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT, method
            assert "not a" in await call.details()
        assert asked == []
        assert p.server.runtime.calls == 0


@both
async def test_more_or_fewer_messages_than_the_method_takes(adapter: str, tmp_path: Path) -> None:
    async with pair(adapter, tmp_path) as p, channel(p.url) as plain:
        for messages in ([], [b"", b""]):
            stub: Any = plain.stream_stream(NETWORK_SERVICE_REQUEST.path)
            call = stub(iter(messages), timeout=0.3)
            await call.code()
        assert await p.request() == Connection()
        assert p.server.runtime.calls == 0


@both
async def test_methods_that_are_not_offered_or_not_known(adapter: str, tmp_path: Path) -> None:
    async with pair(adapter, tmp_path) as p, channel(p.url) as plain:
        for path in (NSE_REGISTER.path, "/nobody.Knows/This"):
            code, text, _ = await status_of(plain.unary_unary(path)(b"", timeout=10))  # type: ignore[arg-type]
            assert code is grpc.StatusCode.UNIMPLEMENTED
            assert text


@both
async def test_repeated_and_binary_metadata(adapter: str, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def do(call: Call, request: Request) -> None:
        seen.update(call.metadata)

    async with pair(adapter, tmp_path, do) as p, channel(p.url) as plain:
        metadata = (("path", "first"), ("path", "last"), ("data-bin", b"\x00\xff"))
        await plain.unary_unary(NETWORK_SERVICE_REQUEST.path)(b"", metadata=metadata, timeout=10)  # type: ignore[arg-type]
    assert seen["path"] == "last"
    assert all(isinstance(value, str) for value in seen.values())
    assert "data-bin" not in seen


async def test_who_calls(tmp_path: Path) -> None:
    seen: list[str] = []

    async def do(call: Call, request: Request) -> None:
        seen.append(call.peer.address)

    for adapter in ("tcp", "grpcio-tcp", "unix", "grpcio-unix"):
        async with pair(adapter, tmp_path, do) as p:
            await p.request()
    assert all(address.startswith("tcp://127.0.0.1:") for address in seen[:2])
    assert all(address.startswith("unix:") for address in seen[2:])


@both
async def test_health_is_watched(adapter: str, tmp_path: Path) -> None:
    began, allow = asyncio.Event(), asyncio.Event()

    async def do(call: Call, request: Request) -> None:
        began.set()
        await allow.wait()

    states: list[Any] = []
    async with pair(adapter, tmp_path, do, drain=10.0) as p, channel(p.url) as plain:
        stub: Any = plain.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        watch = stub(health_pb2.HealthCheckRequest(service="networkservice.NetworkService"), timeout=20)
        states.append((await watch.read()).status)
        task = asyncio.create_task(p.request())
        await began.wait()
        stopping = asyncio.create_task(p.server.runtime.drain(10.0))
        states.append((await watch.read()).status)
        allow.set()
        await task
        assert await stopping
        watch.cancel()
    assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


# --- an application's own server -------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@both
async def test_a_role_is_mounted_beside_an_applications_own_methods(adapter: str, late: bool, tmp_path: Path) -> None:
    async def own(raw: bytes, context: Any) -> bytes:
        return b"own " + raw

    async def watch(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        yield ConnectionEvent()
        await asyncio.Event().wait()

    made, _ = role(nothing, watch)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Plain({"/app.Own/Method": own}),))
    url = f"unix://{tmp_path}/app"
    server.add_insecure_port(url.replace("unix://", "unix:"))
    dialer = dialing(adapter, dial_timeout=0.5)
    try:
        async with Role("client", services=[dialer]).serving() as client, channel(url) as plain:
            far = dialer(url)
            assert far.monitor is not None
            assert far.nse is not None
            async with made.serving() as running:
                mount(server, Served(running.bound, running.runtime))
                await server.start()
                assert await ask(client, far) == Connection()
                assert await plain.unary_unary("/app.Own/Method")(b"x", timeout=10) == b"own x"  # type: ignore[arg-type]
                with pytest.raises(Unimplemented):
                    await far.nse.register(client.call(timeout=10), NetworkServiceEndpoint())
                events = far.monitor.watch(client.call(timeout=10), Selector())
                await anext(events)
                if late:
                    running.kill()
            async with aclosing(events):
                with pytest.raises(Unavailable):
                    await anext(events)
            with pytest.raises(Unavailable, match="shutting down"):
                await ask(client, far)
            assert await plain.unary_unary("/app.Own/Method")(b"y", timeout=10) == b"own y"  # type: ignore[arg-type]
    finally:
        await server.stop(None)


def test_grpcio_is_imported_by_those_who_mount_alone() -> None:
    look = "import sys, nsm_sdk, nsm_sdk.transport, nsm_sdk.chains; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


async def test_two_roles_on_one_server(tmp_path: Path) -> None:
    async def one(call: Call, request: Request) -> Connection:
        return Connection(id="one")

    first, _ = role(one, name="first")
    second, _ = role(name="second", families=True)
    server = grpc.aio.server()
    url = f"unix://{tmp_path}/app"
    server.add_insecure_port(url.replace("unix://", "unix:"))
    dialer = Dialer()
    try:
        async with (
            first.serving() as a,
            second.serving() as b,
            Role("client", services=[dialer]).serving() as client,
        ):
            mount(server, Served(a.bound, a.runtime))
            mount(server, Served(b.bound, b.runtime))
            await server.start()
            far = dialer(url)
            assert far.nse is not None
            assert (await ask(client, far)).id == "one"
            answer = await far.nse.register(client.call(timeout=10), NetworkServiceEndpoint(name="nse"))
            assert answer.name == "nse"
    finally:
        await server.stop(None)


def test_a_malformed_url_is_refused_by_dialer_and_listener() -> None:
    from nsm_sdk.transport import listen

    for url in ("", "host:1", "http://host:1", "tcp://host", "tcp://host:99999", "inproc://", "unix://"):
        for use in (Dialer(), listen):
            with pytest.raises(InvalidRequest) as caught:
                use(url)
            assert caught.value.hint
