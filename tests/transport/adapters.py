# SPDX-License-Identifier: Apache-2.0
"""What the transport's tests share.

Does:  names every adapter; serves a role whose behaviour a test gives as functions, and a client that dials it.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from nsm_sdk.api import Connection, ConnectionEvent, NetworkService, NetworkServiceEndpoint, Request, Selector
from nsm_sdk.core import (
    Bound,
    Call,
    Chain,
    Element,
    Found,
    Listen,
    Next,
    Query,
    RegistryElement,
    RegistryNext,
    Role,
    Running,
    WatchElement,
    WatchNext,
)
from nsm_sdk.transport import Dialer, Extra, listen
from tests.run import unique
from tests.transport import grpcio

SOCKETS = ("unix", "tcp", "grpcio-unix", "grpcio-tcp", "unix-to-grpcio", "grpcio-to-unix")
"""Sockets of our own, grpcio, and each calling the other."""
ADAPTERS = (*SOCKETS, "inproc")
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS)
every_socket = pytest.mark.parametrize("adapter", SOCKETS)
both = pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
"""For what has to do with one side only."""


def address(adapter: str, folder: Path) -> str:
    """A place to listen at that nobody else uses."""
    if adapter == "inproc":
        return f"inproc://{unique('peer')}"
    return "tcp://127.0.0.1:0" if adapter.endswith("tcp") else f"unix://{folder}/{unique('s')}"


def dialing(adapter: str, *args: Any, **settings: Any) -> Dialer:
    """A dialer of this adapter."""
    made: Any = grpcio.GrpcDialer if adapter.startswith("grpcio") else Dialer
    return cast(Dialer, made(*args, **settings))


def listening(adapter: str, url: str, **settings: Any) -> Listen:
    """A listener of this adapter."""
    foreign = adapter in ("grpcio-unix", "grpcio-tcp", "unix-to-grpcio")
    return grpcio.listen(url, **settings) if foreign else listen(url, **settings)


class Tokens:
    """A caller that is always the same."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def token(self, peer: str) -> tuple[str, float]:
        self.asked.append(peer)
        return "a-token", 1_795_471_453.5


RequestDo = Callable[[Call, Request], Any]


class Doing(Element):
    """Does for a request what the test says, and notes every close."""

    def __init__(self, do: RequestDo) -> None:
        self._do = do
        self._closed: list[str] = []

    @property
    def closed(self) -> list[str]:
        return self._closed

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        answer = await self._do(call, request)
        return request.connection if answer is None else answer

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._closed.append(conn.id)
        await next.close(call, conn)


WatchDo = Callable[[Call, Selector], AsyncGenerator[ConnectionEvent, None]]


class Watching(WatchElement):
    """Answers a watch with the test's generator."""

    def __init__(self, do: WatchDo) -> None:
        self._do = do

    def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        return self._do(call, selector)


class Entries(RegistryElement[Any]):
    """Keeps what is registered, and gives it a second name at the end to show who answered."""

    def __init__(self) -> None:
        self._entries: dict[str, Any] = {}

    async def register(self, call: Call, entry: Any, next: RegistryNext[Any]) -> Any:
        call.answer["path"] = f"answered {call.metadata.get('path', 'nothing')}"
        self._entries[entry.name] = entry
        return entry

    async def unregister(self, call: Call, entry: Any, next: RegistryNext[Any]) -> None:
        self._entries.pop(entry.name, None)

    async def find(self, call: Call, query: Query[Any], next: RegistryNext[Any]) -> AsyncGenerator[Found[Any], None]:
        for name, entry in self._entries.items():
            if query.entry.name in name:
                yield Found(entry)
        if query.watch:
            yield Found(query.entry, deleted=True)


async def nothing(call: Call, request: Request) -> None:
    """Answers the connection as it came."""


async def no_events(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
    """A stream that ends at once."""
    for _ in ():
        yield ConnectionEvent()


@dataclass
class Pair:
    """A server and its client."""

    server: Running
    client: Running
    dialer: Dialer
    far: Bound
    url: str
    element: Doing

    async def request(self, request: Request | None = None, **fields: Any) -> Connection:
        """A request from the client."""
        assert self.far.connection is not None
        fields.setdefault("timeout", 10.0)
        return await self.far.connection.request(self.client.call(**fields), request or Request())

    def watch(self, **fields: Any) -> AsyncGenerator[ConnectionEvent, None]:
        """A watch from the client."""
        assert self.far.monitor is not None
        fields.setdefault("timeout", 10.0)
        return self.far.monitor.watch(self.client.call(**fields), Selector())


def role(
    do: RequestDo = nothing, watch: WatchDo = no_events, *, name: str = "server", families: bool = False
) -> tuple[Role, Doing]:
    """A hop that does what it is told."""
    element = Doing(do)
    made = Role(
        name,
        connection=Chain("connection", element),
        monitor=Chain("monitor", Watching(watch)),
        ns=Chain[RegistryNext[NetworkService]]("ns", Entries()) if families else None,
        nse=Chain[RegistryNext[NetworkServiceEndpoint]]("nse", Entries()) if families else None,
    )
    return made, element


@asynccontextmanager
async def pair(
    adapter: str,
    folder: Path,
    do: RequestDo = nothing,
    watch: WatchDo = no_events,
    *,
    families: bool = False,
    extra: Extra | None = None,
    dialer: Dialer | None = None,
    url: str = "",
    drain: float = 2.0,
) -> AsyncGenerator[Pair, None]:
    """Serve, dial, and end both."""
    made, element = role(do, watch, families=families)
    dialer = dialer or dialing(adapter)
    async with Role("client", services=[dialer]).serving() as client:
        opened = listening(adapter, url or address(adapter, folder), extra=extra)
        async with made.serving(listen=[opened], drain=drain) as server:
            yield Pair(server, client, dialer, dialer(server.urls[0]), server.urls[0], element)
