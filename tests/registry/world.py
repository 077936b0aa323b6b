# SPDX-License-Identifier: Apache-2.0
"""A small world for the elements that choose.

Does:  `World` is a registry in memory that can be away, hang, forget everything and count what it is asked; `Hosts`
       stands for whoever listens at the URLs that are chosen.
Place: tests of discovery.
State: what the test put in.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio

from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint, Request
from nsm_sdk.core import (
    NS,
    NSE,
    Bound,
    Call,
    Chain,
    Element,
    Found,
    Kind,
    Next,
    Query,
    RegistryElement,
    RegistryNext,
    registry_end,
)
from nsm_sdk.errors import Unavailable
from nsm_sdk.registry import Memory, MemoryStore


class _Door(RegistryElement[Any]):
    def __init__(self, world: World) -> None:
        self._world = world

    async def find(self, call: Call, query: Query[Any], next: RegistryNext[Any]) -> AsyncGenerator[Found[Any], None]:
        world = self._world
        world.watches += query.watch
        world.finds += not query.watch
        await world.door()
        if not query.watch:
            async with aclosing(next.find(call, query)) as stream:
                async for found in stream:
                    yield found
            for entry in world.also.pop() if world.also else ():
                yield Found(entry)
            return
        world.open += 1
        try:
            async with aclosing(next.find(call, query)) as stream:
                async for found in stream:
                    await world.door()
                    yield found
            raise Unavailable("the registry went away")
        finally:
            world.open -= 1


class World:
    """A registry. `away`: every call fails; `hangs`: every call waits."""

    def __init__(self) -> None:
        self.services: MemoryStore[NetworkService] = MemoryStore(NS)
        self.endpoints: MemoryStore[NetworkServiceEndpoint] = MemoryStore(NSE)
        self.error: Exception | None = None
        self.hangs = False
        self.also: list[list[Any]] = []
        """What the next plain Finds tell besides, the last one first."""
        self.finds = 0
        self.watches = 0
        self.open = 0

    async def door(self) -> None:
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error

    def bound(self) -> Bound:
        """The registry as a peer offers it."""

        def chain(kind: Kind[Any], store: MemoryStore[Any]) -> RegistryNext[Any]:
            return Chain("r", _Door(self), Memory(kind, store)).bind(registry_end())

        return Bound(ns=chain(NS, self.services), nse=chain(NSE, self.endpoints))

    def break_watches(self) -> None:
        """Streams that are open break."""
        self.services._watching.end()
        self.endpoints._watching.end()

    def go(self, error: Exception | None = None) -> None:
        """The registry goes away."""
        self.error = error or Unavailable("connection refused")
        self.break_watches()

    def come(self, *, empty: bool = False) -> None:
        """It is back."""
        self.error = None
        self.hangs = False
        if empty:
            for name in list(self.services._items):
                self.services.remove(name)
            for name in list(self.endpoints._items):
                self.endpoints.remove(name)


class Hosts(Element):
    """Ends a chain: whoever listens at `call.url`. `behave[url]` may raise, wait, or change the answer."""

    last = True

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """(URL, endpoint asked for) of each request."""
        self.closes: list[str] = []
        self.behave: dict[str, Callable[[], Any]] = {}
        self.behave_close: dict[str, Callable[[], Any]] = {}

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.requests.append((call.url, request.connection.network_service_endpoint_name))
        behave = self.behave.get(call.url)
        if behave is not None:
            answer = behave()
            if answer is not None:
                await answer
        return request.connection

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self.closes.append(call.url)
        if (behave := self.behave_close.get(call.url)) is not None:
            await behave()

    @property
    def urls(self) -> list[str]:
        """URLs of all requests."""
        return [url for url, _ in self.requests]


def failing(error: Exception) -> Callable[[], Any]:
    """A behaviour: raise `error`."""

    def behave() -> Any:
        raise error

    return behave
