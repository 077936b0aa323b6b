# SPDX-License-Identifier: Apache-2.0
"""Small elements to build chains of in the tests of the core.

Does:  one element for each way of taking part.
Place: tests of this folder.
State: none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from nsm_sdk.api import Connection, ConnectionEvent, NetworkServiceEndpoint, Request, Selector
from nsm_sdk.core import (
    Call,
    Element,
    Found,
    Layer,
    Next,
    Observer,
    Query,
    RegistryElement,
    RegistryNext,
    Service,
    Slot,
    WatchElement,
    WatchNext,
)


class Passive(Element):
    """Overrides nothing."""


class Tags(Element):
    """Puts its tag into the request on its way down and into the answer on its way up."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        request.connection.network_service += f"{self.tag}>"
        conn = await next.request(call, request)
        conn.network_service += f"<{self.tag}"
        return conn


class Closes(Element):
    """Overrides close only; remembers whom it closed."""

    def __init__(self) -> None:
        self._closed: list[str] = []

    @property
    def closed(self) -> list[str]:
        """Ids in order."""
        return self._closed

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._closed.append(conn.id)
        await next.close(call, conn)


class Opens(Element):
    """Opens state, as Begin does."""

    gives_state = True
    unique = True


class Keeps(Element):
    """Owns a slot."""

    def __init__(self) -> None:
        self._kept = Slot[int]("kept")


class KeepsByClass(Element):
    """Owns a slot that all instances share."""

    kept = Slot[int]("kept")


class Last(Element):
    """Nothing may follow."""

    last = True


class NeedsTags(Element):
    """Wants Tags above."""

    needs = (Tags,)


class AfterTags(Element):
    """Wants Tags above, if there are any."""

    after = (Tags,)


class Once(Element):
    """Once per path."""

    unique = True


class Branches(Element):
    """Goes the left or the right way, by the connection's id."""

    def __init__(self, left: Layer[Next], right: Layer[Next]) -> None:
        self.left = left
        self.right = right

    def children(self) -> Mapping[str, Layer[Next]]:
        return {"left": self.left, "right": self.right}

    def bind(self, next: Next, observe: Observer | None = None) -> Next:
        ways = {name: branch.bind(next, observe) for name, branch in self.children().items()}

        async def request(call: Call, request: Request) -> Connection:
            return await ways[request.connection.id].request(call, request)

        async def close(call: Call, conn: Connection) -> None:
            await ways[conn.id].close(call, conn)

        return Next(request, close, (*ways["left"].closers, *ways["right"].closers))


class Table(Service):
    """A shared service."""


class UsesTable(Element):
    """Holds a service."""

    def __init__(self, table: Table) -> None:
        self.table = table


class NamesEndpoint(RegistryElement[NetworkServiceEndpoint]):
    """Renames what is registered and what is found."""

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        entry.name += "-renamed"
        return await next.register(call, entry)

    async def find(
        self, call: Call, query: Query[NetworkServiceEndpoint], next: RegistryNext[NetworkServiceEndpoint]
    ) -> AsyncGenerator[Found[NetworkServiceEndpoint], None]:
        yield Found(NetworkServiceEndpoint(name="gone"), deleted=True)
        yield Found(NetworkServiceEndpoint(name="first"))
        yield Found(NetworkServiceEndpoint(name="second"))


class Announces(WatchElement):
    """Sends one event and then what comes from below."""

    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        yield ConnectionEvent()
        async for event in next.watch(call, selector):
            yield event
