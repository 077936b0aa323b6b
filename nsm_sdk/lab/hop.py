# SPDX-License-Identifier: Apache-2.0
"""One hop of the mesh, however it runs: started, stopped, killed, started again under the same name and address.

Does:  `Hop` is what scenarios see; `ServedHop` runs the roles of a hop in this process. A kill leaves everything as a
       crash would; a stop unregisters and drains.
Place: registry, managers, forwarders, endpoints and clients of the lab.
State: the roles that are being served.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from nsm_sdk.client import Client
from nsm_sdk.core import Clock, Observer, Role, Running
from nsm_sdk.endpoint import RegisteredRole
from nsm_sdk.errors import FailedPrecondition

READY_TIME = 20.0
"""Seconds until a hop that was started must be ready."""


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


class ServedHop(Hop):
    """A hop in this process. `build` makes it for every start: a role to serve at `url`, or what serves itself."""

    def __init__(
        self,
        role: str,
        name: str,
        url: str,
        build: Callable[[], Role | RegisteredRole | Client],
        *,
        clock: Callable[[], Clock],
        observe: Observer | None = None,
    ) -> None:
        super().__init__(role, name, url)
        self._build = build
        self._clock = clock
        self._observe = observe
        self._block: RegisteredRole | Client | None = None

    @property
    def alive(self) -> bool:
        return self._block is not None

    @property
    def block(self) -> RegisteredRole | Client:
        """What is served. FailedPrecondition while it does not run."""
        if self._block is None:
            raise FailedPrecondition(f"{self.role} {self.name} does not run", hint="start it, or restart it")
        return self._block

    @property
    def running(self) -> Running:
        """The role that does the hop's work. FailedPrecondition while it does not run."""
        return self.block.running

    @property
    def served(self) -> list[Running]:
        """Every role of this hop that is being served."""
        return [] if self._block is None else self._block.served

    def find(self, kind: type[Any]) -> Any:
        """The first element of type `kind`, or None."""
        return self.running.find(kind)

    async def start(self) -> None:
        if self.alive:
            return
        built = self._build()
        block = RegisteredRole(built, listen=self.url) if isinstance(built, Role) else built
        await block.start(clock=self._clock(), observe=self._observe)
        if self.url:
            self.url = block.running.urls[0]
        self._block = block

    async def registered(self, timeout: float = READY_TIME) -> None:
        """Wait until the first registration stands; the error that refuses it for good."""
        if isinstance(self._block, RegisteredRole) and self._block.offered:
            await self._block.registered(timeout=timeout)

    async def stop(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            await block.stop()

    async def kill(self) -> None:
        for one in self.served:
            one.kill()
        for one in self.served:
            await one.wait_ended()
        await self.stop()
