# SPDX-License-Identifier: Apache-2.0
"""Doubles to drive IPAM elements with.

Does:  `Hop` binds an element between a keeper of states above, which undoes a failed first request as `Begin` does,
       and an end below that records, answers and fails on demand.
Place: tests of this room.
State: the states of connections, and what the end has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import END, Call, Cause, Element, Events, Layer, Next, Runtime, State

T = TypeVar("T")


class Posts(Events):
    """Remembers what was posted."""

    def __init__(self) -> None:
        self.posted: list[str] = []

    def reselect(self, edit: object = None, done: object = None, still: object = None) -> None:
        self.posted.append("reselect")


class States(Element):
    """Gives each connection id a state, from its first request to its close."""

    gives_state = True

    def __init__(self) -> None:
        self.states: dict[str, State] = {}

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        id_ = request.connection.id
        first = id_ not in self.states
        call.state = self.states.setdefault(id_, State())
        before = Connection()
        before.CopyFrom(request.connection)
        try:
            return await next.request(call, request)
        except BaseException:
            if first:
                call.cause = Cause.ROLLBACK
                await self.close(call, before, next)
            raise

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        call.state = self.states.get(conn.id, State())
        try:
            await next.close(call, conn)
        finally:
            self.states.pop(conn.id, None)
            assert call.state.leftovers() == []


class Below(Element):
    """The end of the chain: `answer` may edit the connection, or raise."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.closes: list[Connection] = []
        self.answer: Callable[[Connection], None] = lambda conn: None

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        seen = Request()
        seen.CopyFrom(request)
        self.requests.append(seen)
        conn = Connection()
        conn.CopyFrom(request.connection)
        self.answer(conn)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self.closes.append(conn)
        self.answer(conn)


class Hop:
    """One element under test."""

    def __init__(self, element: Layer[Next]) -> None:
        self.states = States()
        self.below = Below()
        self.events = Posts()
        end = self.below.bind(END)
        self._bound = self.states.bind(element.bind(end))

    def request(self, conn: Connection) -> Connection:
        """One request with a copy of `conn`; what it answers."""
        request = Request()
        request.connection.CopyFrom(conn)
        return run(self._bound.request(self._call(), request))

    def close(self, conn: Connection) -> None:
        """One close with a copy of `conn`."""
        copy = Connection()
        copy.CopyFrom(conn)
        run(self._bound.close(self._call(), copy))

    def _call(self) -> Call:
        # nothing in this room looks at the runtime during a call
        return Call(cast("Runtime", None), events=self.events)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never waits, without a loop, so that property tests stay fast."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    coroutine.close()
    raise AssertionError("the element waited")


def connection(
    id_: str = "a", *, src: tuple[str, ...] = (), dst: tuple[str, ...] = (), excluded: tuple[str, ...] = ()
) -> Connection:
    """A connection with that IP context."""
    conn = Connection(id=id_)
    context = conn.context.ip_context
    context.src_ip_addrs.extend(src)
    context.dst_ip_addrs.extend(dst)
    context.excluded_prefixes.extend(excluded)
    return conn
