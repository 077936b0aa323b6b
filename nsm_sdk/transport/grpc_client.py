# SPDX-License-Identifier: Apache-2.0
"""gRPC, client side.

Does:  carries calls to one peer over one channel, which is opened by the first call and opened anew after the peer was
       not to be reached. A call waits for a peer that is not there at most `dial_timeout`, then fails with
       `Unavailable`; a call to a peer that is there fails as soon as gRPC knows.
Place: behind `Dialer`.
State: the channel, its stubs, and the number of calls that use it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any

import anyio.lowlevel
import grpc
import grpc.aio

from nsm_sdk.api import Message, Method, Target
from nsm_sdk.core import Call
from nsm_sdk.errors import DeadlineExceeded, Exhausted, NsmError, Status, Unavailable
from nsm_sdk.transport import health
from nsm_sdk.transport.metadata import TokenSource, incoming, outgoing
from nsm_sdk.transport.offers import answered
from nsm_sdk.transport.settings import ChannelSettings, channel_options
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
            return health.is_serving(await rpc)
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
