# SPDX-License-Identifier: Apache-2.0
"""Doubles of the connection family: elements that stand for what is below.

Does:  record, fail, block, answer, or lose answers. They are ordinary elements; put them anywhere in a chain.
Place: below (or above) the element under test.
State: what they have seen; not bound to a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nsm_sdk.api import Connection, Message, Request
from nsm_sdk.core import Call, Cause, Element, Next, Peer
from nsm_sdk.errors import ProgrammingError, Unavailable


@dataclass(slots=True, kw_only=True)
class Passed:
    """One call that passed; messages are copies."""

    verb: str
    message: Any
    """What was handed down: Request, Connection, registry entry, Query, Selector."""
    cause: Cause
    url: str
    deadline: float
    peer: Peer
    metadata: Mapping[str, str]
    answer: Any = None
    """What came back; None while it runs, after a failure, and for verbs that answer nothing."""
    error: BaseException | None = None

    @property
    def connection(self) -> Connection:
        """The connection in the message of a `request` or `close`."""
        connection: Connection = self.message.connection if isinstance(self.message, Request) else self.message
        return connection


@dataclass(slots=True)
class Seen:
    """All calls that passed."""

    calls: list[Passed] = field(default_factory=list)

    def note(self, verb: str, call: Call, message: Any) -> Passed:
        """Add one call."""
        passed = Passed(
            verb=verb,
            message=copied(message),
            cause=call.cause,
            url=call.url,
            deadline=call.deadline,
            peer=call.peer,
            metadata=dict(call.metadata),
        )
        self.calls.append(passed)
        return passed

    def of(self, verb: str) -> list[Passed]:
        """The calls of one verb."""
        return [passed for passed in self.calls if passed.verb == verb]

    @property
    def verbs(self) -> list[str]:
        """Verbs in order of arrival."""
        return [passed.verb for passed in self.calls]

    @property
    def requests(self) -> int:
        """How many requests arrived."""
        return len(self.of("request"))

    @property
    def closes(self) -> int:
        """How many closes arrived."""
        return len(self.of("close"))


def copied(message: Any) -> Any:
    """A copy of a protobuf message; anything else as it is."""
    if not isinstance(message, Message):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


T = TypeVar("T")
Failure = BaseException | Callable[[], BaseException]
"""An error to raise, or what makes one each time."""


def made(error: Failure) -> BaseException:
    """The error to raise now."""
    return error if isinstance(error, BaseException) else error()


def checked_verb(verb: str, verbs: tuple[str, ...]) -> str:
    """`verb`, if it is one of the family's."""
    if verb not in verbs:
        raise ProgrammingError(f"no verb {verb!r}", hint=f"one of {', '.join(verbs)}")
    return verb


async def record(passed: Passed, below: Coroutine[Any, Any, T]) -> T:
    """Run `below` and note how it ended."""
    try:
        answer = await below
    except BaseException as error:
        passed.error = error
        raise
    passed.answer = copied(answer)
    return answer


class Probe(Element):
    """Records what passes and changes nothing."""

    def __init__(self) -> None:
        self._seen = Seen()

    @property
    def seen(self) -> Seen:
        """Every call that passed."""
        return self._seen

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        return await record(self._seen.note("request", call, request), self.on_request(call, request, next))

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        await record(self._seen.note("close", call, conn), self.on_close(call, conn, next))

    async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
        """What a subclass does instead of going on."""
        return await next.request(call, request)

    async def on_close(self, call: Call, conn: Connection, next: Next) -> None:
        """What a subclass does instead of going on."""
        await next.close(call, conn)


class _OneVerb(Probe):
    """Does `act` in one of the two verbs and passes the other on."""

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = checked_verb(verb, self.verbs)

    async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
        below = next.request(call, request)
        return await (self.act(below) if self.verb == "request" else below)

    async def on_close(self, call: Call, conn: Connection, next: Next) -> None:
        below = next.close(call, conn)
        await (self.act(below) if self.verb == "close" else below)

    async def act(self, below: Coroutine[Any, Any, T]) -> T:
        """Run, replace or drop the work below; whoever drops it closes it."""
        raise NotImplementedError


class FailTimes(_OneVerb):
    """Raises `error` in the first `times` calls of `verb` without going below; later calls pass."""

    def __init__(self, times: int, error: Failure, *, verb: str = "request") -> None:
        super().__init__(verb)
        self.times = times
        self._error = error

    async def act(self, below: Coroutine[Any, Any, T]) -> T:
        if len(self._seen.of(self.verb)) > self.times:
            return await below
        below.close()
        raise made(self._error)


class Lose(_OneVerb):
    """Lets the first `times` calls of `verb` do their work below, and then raises `error`: the answer is lost."""

    def __init__(self, times: int = 1, error: Failure | None = None, *, verb: str = "request") -> None:
        super().__init__(verb)
        self.times = times
        self._error = error

    async def act(self, below: Coroutine[Any, Any, T]) -> T:
        lost = len(self._seen.of(self.verb)) <= self.times
        answer = await below
        if lost:
            raise Unavailable("the answer was lost") if self._error is None else made(self._error)
        return answer


class Park(_OneVerb):
    """Holds every call of `verb` until `release()`; with `late`, once the work below is done."""

    def __init__(self, *, verb: str = "request", late: bool = False) -> None:
        super().__init__(verb)
        self.late = late
        self._gate = Gate()

    @property
    def parked(self) -> int:
        """How many calls are being held."""
        return self._gate.held

    async def reached(self, count: int = 1) -> None:
        """Wait until `count` calls are being held."""
        await self._gate.reached(count)

    def release(self) -> None:
        """Let all go, now and from now on."""
        self._gate.open()

    def hold(self) -> None:
        """Hold again what arrives from now on."""
        self._gate.shut()

    async def act(self, below: Coroutine[Any, Any, T]) -> T:
        if self.late:
            answer = await below
            await self._gate.pass_through()
            return answer
        try:
            await self._gate.pass_through()
        except BaseException:
            below.close()
            raise
        return await below


class Gate:
    """Something to wait at; `Park` is made of one."""

    def __init__(self) -> None:
        self.held = 0
        self._open = asyncio.Event()
        self._changed = asyncio.Event()

    async def pass_through(self) -> None:
        """Wait until the gate is open."""
        self.held += 1
        self._changed.set()
        try:
            await self._open.wait()
        finally:
            self.held -= 1

    async def reached(self, count: int) -> None:
        """Wait until `count` wait here."""
        while self.held < count:
            self._changed.clear()
            await self._changed.wait()

    def open(self) -> None:
        """Let all pass."""
        self._open.set()

    def shut(self) -> None:
        """Let nobody pass."""
        self._open.clear()


class Answer(Probe):
    """Ends the chain: the request's answer is what `fn` makes of it (default: the request's connection)."""

    last = True

    def __init__(self, fn: Callable[[Request], Connection] | None = None) -> None:
        super().__init__()
        self._fn = fn

    async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
        return request.connection if self._fn is None else self._fn(request)

    async def on_close(self, call: Call, conn: Connection, next: Next) -> None:
        return None
