# SPDX-License-Identifier: Apache-2.0
"""grpcio as a peer: a dialer and a listener like ours, for one suite over both, and over each calling the other.

Does:  `GrpcDialer` calls over grpc.aio channels; `listen` serves a role on a grpc.aio server by `mount`, with health.
Place: tests/transport.
State: channels and servers of a test.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import AbstractContextManager, ExitStack, aclosing, asynccontextmanager, nullcontext
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import grpc
import grpc.aio
from grpc_health.v1 import health as foreign_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nsm_sdk import api
from nsm_sdk.api import Message, Method, Target
from nsm_sdk.core import Bound, Call, Listen, Served, Service
from nsm_sdk.errors import AlreadyExists, DeadlineExceeded, Exhausted, NsmError, Status, Unavailable, Unimplemented
from nsm_sdk.transport import Extra, TokenSource, health, mount, sockets
from nsm_sdk.transport.grpc_server import refuse
from nsm_sdk.transport.inproc import InprocCarrier
from nsm_sdk.transport.metadata import incoming, outgoing
from nsm_sdk.transport.offers import answered, offers, reach
from nsm_sdk.transport.settings import (
    BACKOFF,
    DIAL_TIMEOUT,
    GRACE,
    MAX_MESSAGE,
    MAX_METADATA,
    MAX_STREAMS,
    PING_EVERY,
    ChannelSettings,
)
from nsm_sdk.transport.status import PUSHBACK_KEY, TRAIL_KEY, clean, decode

_READY = grpc.ChannelConnectivity.READY
_BROKEN = (
    "Broken pipe",
    "Cancelling all calls",
    "Connection reset",
    "GOAWAY",
    "Socket closed",
    "Stream removed",
    "failed to connect",
    "keepalive",
    "ping timeout",
    "recvmsg",
    "sendmsg",
)
"""How texts begin with which gRPC itself, not the peer, reports a connection that is gone."""


class GrpcCarrier:
    """Calls to one peer over gRPC."""

    def __init__(self, target: Target, tokens: TokenSource | None, settings: ChannelSettings) -> None:
        self.url = target.url
        self.active = 0
        """Calls that are running."""
        # A host that is left out is this machine.
        self._target = f"localhost:{target.port}" if target.network == "tcp" and not target.host else target.grpc
        self._tokens = tokens
        self._settings = settings
        self._options = channel_options(settings)
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}

    async def unary(self, method: Method[Any, Any], call: Call, request: Message) -> Any:
        attempt = self._begin(call)
        stub = self._stubs.get(method.path)
        if stub is None:
            stub = self._stubs[method.path] = attempt.channel.unary_unary(method.path)
        rpc = attempt.start(stub, self._tokens, request.SerializeToString())
        self.active += 1
        failure: NsmError | None = None
        try:
            raw = await rpc
            headers = await rpc.initial_metadata()
        except grpc.aio.AioRpcError as error:
            failure = self._failed(error, attempt, method)
        except asyncio.CancelledError:
            await self._cancelled(attempt)
            raise
        finally:
            self.active -= 1
            attempt.done()
        if failure is not None:
            # Raised here and not above, so that an error which somebody keeps does not keep the call and its messages.
            raise failure
        if headers:
            call.answered = incoming(headers)
        return answered(method, raw, self.url)

    async def stream(self, method: Method[Any, Any], call: Call, request: Message) -> AsyncGenerator[Any, None]:
        attempt = self._begin(call)
        attempt.start(attempt.channel.unary_stream(method.path), self._tokens, request.SerializeToString())
        async with aclosing(self._read(attempt, method)) as responses:
            async for item in responses:
                yield item

    async def exchange(
        self, method: Method[Any, Any], call: Call, requests: AsyncIterable[Any]
    ) -> AsyncGenerator[Any, None]:
        attempt = self._begin(call)
        rpc = attempt.start(attempt.channel.stream_stream(method.path), self._tokens)
        broken: list[Exception] = []

        async def send() -> None:
            try:
                async for request in requests:
                    await rpc.write(request.SerializeToString())
                await rpc.done_writing()
            except (grpc.RpcError, asyncio.InvalidStateError):
                # The reading side learns why the call is over.
                return
            except Exception as error:
                broken.append(error)
                rpc.cancel()
            finally:
                if (close := getattr(requests, "aclose", None)) is not None:
                    await close()

        sending = call.runtime.spawn(send, f"send {method.name}")
        try:
            async with aclosing(self._read(attempt, method, broken)) as responses:
                async for item in responses:
                    yield item
        finally:
            sending.cancel()

    async def healthy(self, call: Call, service: str) -> bool:
        """Ask the peer's health service; a service it does not know is `NotFound`."""
        attempt = self._begin(call)
        rpc = attempt.start(attempt.channel.unary_unary(health.CHECK), None, health.question(service))
        self.active += 1
        try:
            return health.is_serving(await rpc, self.url)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, attempt, None) from None
        except asyncio.CancelledError:
            await self._cancelled(attempt)
            raise
        finally:
            self.active -= 1
            attempt.done()

    async def close(self) -> None:
        """Break what is running and let the connection go; the next call opens a new one."""
        channel, self._channel = self._channel, None
        self._stubs = {}
        if channel is not None:
            await channel.close()

    def drop(self) -> None:
        """Let an unused connection go without waiting; grpc closes it with the last reference."""
        self._channel = None
        self._stubs = {}

    async def _read(
        self, attempt: _Attempt, method: Method[Any, Any], broken: list[Exception] | None = None
    ) -> AsyncGenerator[Any, None]:
        rpc = attempt.rpc
        responses = rpc.__aiter__()
        first = True
        self.active += 1
        try:
            async for raw in responses:
                if first:
                    first = False
                    attempt.done()
                    attempt.call.answered = incoming(await rpc.initial_metadata())
                yield answered(method, raw, self.url)
            if first:
                attempt.call.answered = incoming(await rpc.initial_metadata())
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, attempt, method) from None
        except asyncio.CancelledError:
            if broken:
                raise broken[0] from None
            await self._cancelled(attempt)
            raise
        finally:
            self.active -= 1
            attempt.done()
            rpc.cancel()
            await responses.aclose()

    def _begin(self, call: Call) -> _Attempt:
        left = call.remaining()
        if left <= 0:
            raise DeadlineExceeded(
                f"{self.url}: no time left for a call", hop=call.runtime.name, hint="allow more time"
            )
        channel = self._channel
        if channel is None:
            channel = self._channel = grpc.aio.insecure_channel(self._target, options=self._options)
        return _Attempt(channel, call, left, self._settings.dial_timeout)

    async def _cancelled(self, attempt: _Attempt) -> None:
        """Called for every CancelledError: returns if the task itself was cancelled, else raises what it stands for."""
        if attempt.late:
            if self._channel is attempt.channel and self.active <= 1:
                # A channel that nobody waits for would try to connect for ever.
                await self.close()
            raise Unavailable(
                f"{self.url}: nobody answers",
                hop=attempt.call.runtime.name,
                hint=f"is the peer running, and is this its address? (waited {attempt.waits:.3g} s)",
            )
        # grpc.aio raises a CancelledError of its own, which anyio cannot tell from a foreign one.
        await anyio.lowlevel.checkpoint_if_cancelled()
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise Unavailable(
                f"{self.url}: the connection was closed", hop=attempt.call.runtime.name, hint="call again"
            )

    def _failed(self, error: grpc.aio.AioRpcError, attempt: _Attempt, method: Method[Any, Any] | None) -> NsmError:
        status, text = Status(error.code().value[0]), error.details() or ""
        trailers = dict(error.trailing_metadata() or ())
        trail, pushback = trailers.get(TRAIL_KEY, b""), str(trailers.get(PUSHBACK_KEY, ""))
        if isinstance(trail, bytes) and trail:
            return decode(status, text, trail, self.url, pushback)
        hop = attempt.call.runtime.name
        if status is Status.DEADLINE_EXCEEDED and text.rstrip(")").endswith("Deadline Exceeded"):
            what = f" {method.name}" if method is not None else ""
            return DeadlineExceeded(
                f"{self.url} did not answer{what} in time", hop=hop, hint="the peer hangs, or needs more time"
            )
        if status is Status.UNAVAILABLE and text.startswith(_BROKEN):
            return Unavailable(
                f"{self.url}: the connection failed: {clean(text)}", hop=hop, hint="is the peer still running?"
            )
        if status is Status.RESOURCE_EXHAUSTED and "message larger than max" in text:
            return Exhausted(f"{self.url}: {clean(text)}", hop=hop, hint="send less at once, or raise max_message")
        return decode(status, text, b"", self.url, pushback)


class _Attempt:
    """One call, and how long it may wait for the peer to be there."""

    __slots__ = ("_left", "_ready", "_timer", "call", "channel", "late", "rpc", "waits")

    def __init__(self, channel: grpc.aio.Channel, call: Call, left: float, dial_timeout: float) -> None:
        self.channel = channel
        self.call = call
        self.rpc: Any = None
        self.late = False
        """Whether the peer was not there in time."""
        self.waits = 0.0
        self._left = left
        self._ready = channel.get_state(try_to_connect=True) is _READY
        self._timer: asyncio.TimerHandle | None = None
        if not self._ready:
            # Told a little before the caller's time ends, so that it is this error that the caller reads.
            self.waits = min(dial_timeout, left * 0.8)
            self._timer = asyncio.get_running_loop().call_later(self.waits, self._check)

    def start(self, stub: Any, tokens: TokenSource | None, *message: bytes) -> Any:
        """Send; answers grpc's call object."""
        try:
            self.rpc = stub(
                *message,
                timeout=None if self._left == math.inf else self._left,
                metadata=outgoing(self.call, tokens),
                wait_for_ready=not self._ready and self.call.patient,
            )
        except BaseException:
            self.done()
            raise
        return self.rpc

    def done(self) -> None:
        """The call is over, or the peer is there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self.channel.get_state() is not _READY:
            self.late = True
            self.rpc.cancel()


class GrpcDialer(Service):
    """As `Dialer`, over grpc.aio."""

    shareable: ClassVar[bool] = True

    def __init__(
        self,
        tokens: TokenSource | None = None,
        *,
        dial_timeout: float = DIAL_TIMEOUT,
        ping_every: float = PING_EVERY,
        max_message: int = MAX_MESSAGE,
        idle: int = 64,
    ) -> None:
        self._tokens = tokens
        self._settings = ChannelSettings(dial_timeout=dial_timeout, ping_every=ping_every, max_message=max_message)
        self._idle = idle
        self._pool: dict[str, tuple[InprocCarrier | GrpcCarrier, Bound]] = {}
        self._all: list[InprocCarrier | GrpcCarrier] = []

    def __call__(self, url: str) -> Bound:
        return self._peer(url)[1]

    def exchange(
        self, url: str, method: Method[Any, Any], call: Call, requests: AsyncIterable[Any]
    ) -> AsyncGenerator[Any, None]:
        return self._peer(url)[0].exchange(method, call, requests)

    async def healthy(self, url: str, call: Call, service: str = "") -> bool:
        return await self._peer(url)[0].healthy(call, service)

    async def stop(self) -> None:
        self._pool.clear()
        for carrier in self._all:
            await carrier.close()

    @property
    def connections(self) -> int:
        return len(self._pool)

    def _peer(self, url: str) -> tuple[InprocCarrier | GrpcCarrier, Bound]:
        found = self._pool.pop(url, None)
        if found is None:
            target = Target.parse(url)
            make = InprocCarrier if target.network == "inproc" else GrpcCarrier
            carrier: InprocCarrier | GrpcCarrier = make(target, self._tokens, self._settings)
            self._all.append(carrier)
            found = carrier, reach(carrier)
        self._pool[url] = found
        for other, (old, _) in list(self._pool.items())[: max(len(self._pool) - self._idle, 0)]:
            if other != url and not old.active:
                del self._pool[other]
                old.drop()
        return found


def listen(url: str, *, extra: Extra | None = None, mode: int = 0o600, max_message: int = MAX_MESSAGE) -> Listen:
    """As `nsm_sdk.transport.listen`, on a grpc.aio server."""
    target = Target.parse(url)
    return lambda served: listening(served, target, extra=extra, mode=mode, max_message=max_message)


class _Missing(grpc.GenericRpcHandler):
    """NSM methods that are not offered say so."""

    def __init__(self, served: Served, extra: Extra | None) -> None:
        found = offers(served.bound, extra)
        self._handlers: dict[str, Any] = {
            path: grpc.stream_stream_rpc_method_handler(_missing(served, method))
            for path, method in api.METHODS.items()
            if path not in found
        }

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(details.method)


@asynccontextmanager
async def listening(
    served: Served, target: Target, *, extra: Extra | None, mode: int, max_message: int
) -> AsyncGenerator[str, None]:
    """Serve at `target`; yields the URL with the port taken."""
    tcp = target.network == "tcp"
    # Before there is a server, because one that never starts keeps descriptors for ever.
    if tcp:
        await sockets.check_tcp(target)
    else:
        sockets.check_unix(target.address, target.url)
    server = grpc.aio.server(options=server_options(max_message))
    mount(server, served, extra=extra)
    server.add_generic_rpc_handlers((_Missing(served, extra),))
    services = {offer.method.service for offer in offers(served.bound, extra).values()}
    servicer: Any = foreign_health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    served.runtime.at_drain(lambda: served.runtime.spawn(servicer.enter_graceful_shutdown, "health"))
    with ExitStack() as place:
        grace: float | None = None
        try:
            url = target.url
            try:
                if tcp:
                    url = _bind_tcp(server, target)
                else:
                    place.enter_context(_unix(server, target, mode))
            finally:
                await server.start()
            for service in sorted({"", *services}):
                await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
            yield url
            grace = GRACE
        finally:
            with anyio.CancelScope(shield=True):
                await servicer.enter_graceful_shutdown()
                await server.stop(grace)


def _unix(server: grpc.aio.Server, target: Target, mode: int) -> AbstractContextManager[None]:
    if target.address.startswith("@"):
        server.add_insecure_port(target.grpc)
        return nullcontext()
    return sockets.unix_place(target.address, target.url, mode, lambda path: server.add_insecure_port(f"unix:{path}"))


def _bind_tcp(server: grpc.aio.Server, target: Target) -> str:
    try:
        port = server.add_insecure_port(target.address if target.host else f"[::]:{target.port}")
    except RuntimeError as error:
        raise AlreadyExists(
            f"{target.url}: address in use", hint="stop the program that listens there, or take another"
        ) from error
    return Target("tcp", f"{target.address.rpartition(':')[0]}:{port}").url


def _missing(served: Served, method: Method[Any, Any]) -> Callable[[Any, Any], Any]:
    async def answer(requests: Any, context: Any) -> None:
        hop = served.runtime.name
        await refuse(
            context,
            Unimplemented(
                f"unknown service {method.service}", hop=hop, hint=f"{hop} does not offer it: check the address"
            ),
            hop,
        )

    return answer


def _common(max_message: int) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", max_message),
        ("grpc.max_metadata_size", MAX_METADATA // 2),
        ("grpc.absolute_max_metadata_size", MAX_METADATA),
    ]


def channel_options(settings: ChannelSettings) -> list[tuple[str, Any]]:
    """Options of a gRPC channel."""
    backoff = int(BACKOFF * 1000)
    return [
        *_common(settings.max_message),
        ("grpc.initial_reconnect_backoff_ms", backoff),
        ("grpc.max_reconnect_backoff_ms", backoff),
        # The least time that one attempt gets, not the least pause between two.
        ("grpc.min_reconnect_backoff_ms", max(int(settings.dial_timeout * 1000), 1000)),
        ("grpc.keepalive_time_ms", int(settings.ping_every * 1000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        # Two dialers must not share a connection: tokens are per call, but limits and lifetimes are per dialer.
        ("grpc.use_local_subchannel_pool", 1),
        # Whether to call again is decided by elements, which know what a call meant; it also costs time on every call.
        ("grpc.enable_retries", 0),
        # Peers are named by their addresses; a proxy of the environment is for the web.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]


def server_options(max_message: int) -> list[tuple[str, Any]]:
    """Options of a gRPC server."""
    return [
        *_common(max_message),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # With port sharing a second server would silently take half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 300_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Go clients may ping every 10 seconds, with or without calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
        ("grpc.http2.max_ping_strikes", 10),
    ]
