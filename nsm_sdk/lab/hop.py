# SPDX-License-Identifier: Apache-2.0
"""One hop of the mesh, however it runs: started, stopped, killed, started again under the same name and address.

Does:  `Hop` is what scenarios see; `ServedHop` runs the roles of a hop in this process. A kill leaves everything as a
       crash would; a stop unregisters and drains.
Place: registry, managers, forwarders, endpoints and clients of the lab.
State: the roles that are being served.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import Clock, Observer, Role, Running
from nsm_sdk.errors import DeadlineExceeded, FailedPrecondition, NsmError
from nsm_sdk.transport import listen

READY_TIME = 20.0
"""Seconds until a hop that was started must be ready."""
STOP_TIME = 2.0
"""Seconds that unregistering may take when a hop is stopped."""


class Hop(ABC):
    """A hop. `url`: where it listens; empty for one that does not."""

    def __init__(self, role: str, name: str, url: str) -> None:
        self.role = role
        self.name = name
        self.url = url

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it runs."""

    @abstractmethod
    async def start(self) -> None:
        """Start, and wait until it can be used."""

    @abstractmethod
    async def stop(self) -> None:
        """End gracefully; fine when it does not run."""

    @abstractmethod
    async def kill(self) -> None:
        """End at once, as a crash does: nothing is closed, unregistered or cleaned up."""

    async def restart(self) -> None:
        """Start again, with the same name and address; one that still runs is stopped first."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Hop:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<{self.role} {self.name} at {self.url or 'no address'}, {'running' if self.alive else 'not running'}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a hop registers with its manager."""

    endpoint: NetworkServiceEndpoint
    services: Sequence[NetworkService] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a hop is made of at one start. `registrant` registers `registration` when the hop listens."""

    role: Role
    registrant: Role | None = None
    registration: Registration | None = None


@dataclass(slots=True)
class _Registering:
    """A registration that goes on in the background."""

    what: Registration
    done: anyio.Event = field(default_factory=anyio.Event)
    refused: NsmError | None = None
    """Why it can never succeed; what may pass is tried again by the registrant."""


class ServedHop(Hop):
    """A hop in this process. `build` makes its roles anew for every start; `url` empty: it does not listen."""

    def __init__(
        self,
        role: str,
        name: str,
        url: str,
        build: Callable[[], Parts],
        *,
        clock: Callable[[], Clock],
        observe: Observer | None = None,
    ) -> None:
        super().__init__(role, name, url)
        self._build = build
        self._clock = clock
        self._observe = observe
        self._stack: AsyncExitStack | None = None
        self._registering: _Registering | None = None
        self._registrant: Running | None = None
        self._main: Running | None = None

    @property
    def alive(self) -> bool:
        return self._main is not None

    @property
    def running(self) -> Running:
        """The role that does the hop's work. FailedPrecondition while it does not run."""
        if self._main is None:
            raise FailedPrecondition(f"{self.role} {self.name} does not run", hint="start it, or restart it")
        return self._main

    @property
    def served(self) -> list[Running]:
        """Every role of this hop that is being served."""
        return [one for one in (self._main, self._registrant) if one is not None]

    def find(self, kind: type[Any]) -> Any:
        """The first element of type `kind`, or None."""
        return self.running.find(kind)

    async def start(self) -> None:
        if self.alive:
            return
        parts = self._build()
        async with AsyncExitStack() as stack:
            where = [listen(self.url)] if self.url else []
            main = await stack.enter_async_context(
                parts.role.serving(listen=where, clock=self._clock(), observe=self._observe)
            )
            if self.url:
                self.url = main.urls[0]
            registrant = None
            if parts.registrant is not None:
                registrant = await stack.enter_async_context(
                    parts.registrant.serving(clock=self._clock(), observe=self._observe)
                )
            self._stack = stack.pop_all()
        self._main, self._registrant = main, registrant
        if registrant is not None and parts.registration is not None:
            await self._register(registrant, parts.registration)

    async def _register(self, registrant: Running, what: Registration) -> None:
        what.endpoint.url = self.url
        self._registering = registering = _Registering(what)

        async def run() -> None:
            ns, nse = registrant.bound.ns, registrant.bound.nse
            assert ns is not None
            assert nse is not None
            try:
                for service in what.services:
                    await ns.register(registrant.call(), service)
                await nse.register(registrant.call(), what.endpoint)
            except NsmError as error:
                registering.refused = registrant.runtime.explain(error)
            registering.done.set()

        registrant.runtime.spawn(run, "first registration")

    async def registered(self, timeout: float = READY_TIME) -> None:
        """Wait until the first registration has come through; the error of whoever refused it for good."""
        registering = self._registering
        if registering is None:
            return
        with anyio.move_on_after(timeout) as scope:
            await registering.done.wait()
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                f"{self.role} {self.name} could not register within {timeout:g} s",
                hint="see whether its manager and the registry run",
            )
        if registering.refused is not None:
            raise registering.refused

    async def stop(self) -> None:
        registrant, registering = self._registrant, self._registering
        if registrant is not None and registering is not None and registrant.bound.nse is not None:
            with contextlib.suppress(NsmError, TimeoutError), anyio.fail_after(STOP_TIME):
                await registrant.bound.nse.unregister(registrant.call(timeout=STOP_TIME), registering.what.endpoint)
        await self._leave()

    async def kill(self) -> None:
        for one in self.served:
            one.kill()
        for one in self.served:
            await one.wait_ended()
        await self._leave()

    async def _leave(self) -> None:
        stack, self._stack = self._stack, None
        self._main = self._registrant = self._registering = None
        if stack is not None:
            with anyio.CancelScope(shield=True):
                await stack.aclose()
