# SPDX-License-Identifier: Apache-2.0
"""A hop: its chains by family, and their common lifetime.

Does:  binds and checks the chains, starts the services inside them, opens the listeners, and runs all of it in one task
       group inside a host task of its own, so that errors of the caller's body come out unwrapped and one role can be
       killed without touching whoever started it.
Place: the outermost object of every hop; `Client` and `Endpoint` are made of one.
State: while served, a `Running`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core.call import Call, cleanup_time
from nsm_sdk.core.chain import Chain
from nsm_sdk.core.connection import END, Next
from nsm_sdk.core.lifecycle import Service
from nsm_sdk.core.observe import Observer
from nsm_sdk.core.registry import RegistryNext, registry_end
from nsm_sdk.core.runtime import Clock, Runtime
from nsm_sdk.core.watch import WATCH_END, WatchNext
from nsm_sdk.errors import Cancelled, NsmError

logger = logging.getLogger("nsm_sdk.core")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one address offers, near or far; a family that is not offered is None."""

    connection: Next | None = None
    monitor: WatchNext | None = None
    ns: RegistryNext[NetworkService] | None = None
    nse: RegistryNext[NetworkServiceEndpoint] | None = None


Dial: TypeAlias = Callable[[str], Bound]
"""URL of a peer -> what it offers. Cheap: channels are pooled, and opened when first used."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a listener offers to peers."""

    bound: Bound
    runtime: Runtime


Listen: TypeAlias = Callable[[Served], AbstractAsyncContextManager[str]]
"""Opens a listener for what is served; yields the URL that peers can dial, and stops accepting at exit."""


class Running:
    """A role that is being served."""

    def __init__(self, runtime: Runtime, bound: Bound, urls: tuple[str, ...], chains: Sequence[Chain[Any]]) -> None:
        self.runtime = runtime
        self.bound = bound
        self.urls = urls
        """Where the role listens, in the order of `listen`."""
        self.chains = tuple(chains)
        self._ended = anyio.Event()
        self._host: asyncio.Task[None] | None = None

    def call(self, *, timeout: float = float("inf"), **fields: Any) -> Call:
        """A `Call` of this role's own, for using `bound` directly."""
        return Call(self.runtime, deadline=self.runtime.clock.now() + timeout, **fields)

    def find(self, kind: type[Any]) -> Any:
        """The first layer of type `kind` in any of the role's chains, or None."""
        return next((found for chain in self.chains if (found := chain.find(kind)) is not None), None)

    def kill(self) -> None:
        """End at once, as a crash would: nothing is drained, closed or unregistered."""
        self.runtime.killed = True
        if self._host is not None and not self._ended.is_set():
            # Calls first: none may meet services that have stopped already.
            self.runtime.cut_off()
            self._host.cancel()

    async def wait_ended(self) -> None:
        """Wait until the role has ended, however."""
        await self._ended.wait()


class Role:
    """The chains of one hop. `services` are started with it, before those found inside the chains."""

    def __init__(
        self,
        name: str,
        *,
        connection: Chain[Next] | None = None,
        monitor: Chain[WatchNext] | None = None,
        ns: Chain[RegistryNext[NetworkService]] | None = None,
        nse: Chain[RegistryNext[NetworkServiceEndpoint]] | None = None,
        services: Sequence[Service] = (),
    ) -> None:
        self.name = name
        self.connection = connection
        self.monitor = monitor
        self.ns = ns
        self.nse = nse
        self._services = tuple(services)

    @property
    def chains(self) -> tuple[Chain[Any], ...]:
        """The chains that this role has, connection first."""
        return tuple(chain for chain in (self.connection, self.monitor, self.ns, self.nse) if chain is not None)

    def check(self) -> None:
        """Raise `ChainOrderError` if an element of any chain stands in the wrong place."""
        for chain in self.chains:
            chain.check()

    def bind(self, observe: Observer | None = None) -> Bound:
        """All chains, checked and bound."""
        self.check()
        return Bound(
            connection=None if self.connection is None else self.connection.bind(END, observe),
            monitor=None if self.monitor is None else self.monitor.bind(WATCH_END, observe),
            ns=None if self.ns is None else self.ns.bind(registry_end(), observe),
            nse=None if self.nse is None else self.nse.bind(registry_end(), observe),
        )

    def _all_services(self) -> list[Service]:
        found = {id(service): service for service in self._services}
        for chain in self.chains:
            for service in chain.all_services():
                found.setdefault(id(service), service)
        return list(found.values())

    @asynccontextmanager
    async def serving(
        self,
        *,
        listen: Sequence[Listen] = (),
        clock: Clock | None = None,
        observe: Observer | None = None,
        drain: float = 2.0,
    ) -> AsyncGenerator[Running, None]:
        """Serve until the body ends: stop accepting, let calls end for `drain` seconds at most, stop, cancel."""
        bound = self.bind(observe)
        started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        leave = anyio.Event()
        host = asyncio.create_task(self._host(bound, listen, clock, drain, started, leave), name=f"role {self.name}")
        try:
            both: list[asyncio.Future[Any]] = [started, host]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not started.done() or started.cancelled():
                await asyncio.wait([host])
                if not host.cancelled():
                    host.result()
                raise Cancelled(f"{self.name} ended before it was ready")
            running = started.result()
            running._host = host
            yield running
        finally:
            leave.set()
            if not started.done():
                started.cancel()
                host.cancel()
            with anyio.CancelScope(shield=True):
                await self._join(host)

    async def _join(self, host: asyncio.Task[None]) -> None:
        """Wait for the host task; a role that was killed ends without complaint."""
        await asyncio.wait([host])
        if not host.cancelled() and (error := host.exception()) is not None:
            if isinstance(error, NsmError):
                raise error
            logger.error("role %s ended with an error", self.name, exc_info=error)

    async def _host(
        self,
        bound: Bound,
        listen: Sequence[Listen],
        clock: Clock | None,
        drain: float,
        started: asyncio.Future[Running],
        leave: anyio.Event,
    ) -> None:
        runtime: Runtime | None = None
        try:
            async with anyio.create_task_group() as tasks:
                runtime = Runtime(self.name, clock)
                tasks.start_soon(runtime.own_tasks, name=f"{self.name}: tasks")
                try:
                    await self._run(runtime, bound, listen, drain, started, leave)
                except Exception as error:
                    if started.done():
                        raise
                    # Whoever called `serving` gets the reason itself, not a group of one.
                    started.set_exception(error)
                tasks.cancel_scope.cancel()
        finally:
            if runtime is not None:
                runtime.refuse()
                runtime.timers.close()
            if not started.done():
                started.cancel()
            elif not started.cancelled() and started.exception() is None:
                started.result()._ended.set()

    async def _run(
        self,
        runtime: Runtime,
        bound: Bound,
        listen: Sequence[Listen],
        drain: float,
        started: asyncio.Future[Running],
        leave: anyio.Event,
    ) -> None:
        async with AsyncExitStack() as services:
            for service in self._all_services():
                await service.acquire(runtime)
                services.push_async_callback(_stop, service)
            async with AsyncExitStack() as listeners:
                served = Served(bound, runtime)
                urls = [await listeners.enter_async_context(one(served)) for one in listen]
                started.set_result(Running(runtime, bound, tuple(urls), self.chains))
                await leave.wait()
                with cleanup_time(drain + 1.0):
                    await runtime.drain(drain)
            runtime.timers.close()


async def _stop(service: Service) -> None:
    """Stop one service under its own short time, whatever is being cancelled around it."""
    with cleanup_time(5.0), contextlib.suppress(NsmError):
        await service.release()
