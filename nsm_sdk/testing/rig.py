# SPDX-License-Identifier: Apache-2.0
"""Running connection elements without a mesh.

Does:  `drive` binds elements, requests and closes once, and answers what happened and what is left. `rig` is the same
       for tests that need several steps.
Place: unit tests of elements and chains.
State: a role that is served while the rig is open.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import anyio.lowlevel

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Bound, Call, Chain, Clock, Layer, Next, Observer, Place, Role, Running, Runtime, Slot, State
from nsm_sdk.core.chain import owns_slot
from nsm_sdk.elements import Begin
from nsm_sdk.testing.doubles import Seen, copied
from nsm_sdk.testing.samples import sample_request
from nsm_sdk.testing.virtual import current_clock, settled


@dataclass(slots=True, kw_only=True)
class Left:
    """What is still there; false when nothing is."""

    slots: list[str] = field(default_factory=list)
    """Names of slots that are set, for every connection that was seen."""
    tasks: list[str] = field(default_factory=list)
    """Names of background tasks that run."""
    timers: int = 0
    """Timers that are pending."""

    def __bool__(self) -> bool:
        return bool(self.slots or self.tasks or self.timers)


@dataclass(slots=True, kw_only=True)
class Driven:
    """The record of one `drive`."""

    connection: Connection | None = None
    """The answer of the last request (a copy); None if it failed."""
    error: BaseException | None = None
    """The error that `catch` allowed for, if there was one."""
    seen: Seen
    """The calls that reached the end of the chain."""
    held: Left
    """What was there between the last request and the close."""
    left: Left
    """What was there at the end."""
    runtime: Runtime


class _States:
    """An observer that finds the state of each connection that passes."""

    def __init__(self, inner: Observer | None) -> None:
        self.found: dict[int, State] = {}
        self._inner = inner

    def wrap(self, place: Place, verb: Any) -> Any:
        inner = verb if self._inner is None else self._inner.wrap(place, verb)

        def noting(call: Call, subject: Any) -> Any:
            if call.state is not None:
                self.found[id(call.state)] = call.state
            return inner(call, subject)

        return noting


class _End:
    """Stands below everything: records, and answers the request's connection."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def request(self, call: Call, request: Request) -> Connection:
        passed = self.seen.note("request", call, request)
        passed.answer = copied(request.connection)
        return request.connection

    async def close(self, call: Call, conn: Connection) -> None:
        self.seen.note("close", call, conn)


class _RigRole(Role):
    def __init__(self, chain: Chain[Next], end: _End, check: bool) -> None:
        super().__init__("rig", connection=chain)
        self._chain = chain
        self._end = end
        self._check = check

    def check(self) -> None:
        if self._check:
            super().check()

    def bind(self, observe: Observer | None = None) -> Bound:
        self.check()
        end = Next(self._end.request, self._end.close)
        return Bound(connection=self._chain.bind(end, observe))


class Rig:
    """A chain that is bound and served; each verb is one call, as an edge would make it."""

    def __init__(self, chain: Chain[Next], running: Running, states: _States, seen: Seen) -> None:
        self.chain = chain
        self.seen = seen
        """The calls that reached the end of the chain."""
        self.running = running
        self.last: Connection | None = None
        """The answer of the latest request (a copy)."""
        self._states = states
        assert running.bound.connection is not None
        self._next = running.bound.connection

    @property
    def runtime(self) -> Runtime:
        """The runtime the elements see."""
        return self.running.runtime

    def call(self, *, timeout: float = math.inf, **fields: Any) -> Call:
        """A call for using `next` directly; `fields` are those of `Call`."""
        return self.running.call(timeout=timeout, **fields)

    @property
    def next(self) -> Next:
        """The bound chain."""
        return self._next

    async def request(self, request: Request | None = None, *, timeout: float = math.inf, **fields: Any) -> Connection:
        """Send a copy of `request` (default: `sample_request()`); a finite `timeout` (seconds) is kept as edges do."""
        message: Request = copied(sample_request() if request is None else request)
        await anyio.lowlevel.checkpoint()
        if timeout < math.inf:

            async def run(deadline: float) -> Connection:
                return await self._next.request(Call(self.runtime, deadline=deadline, **fields), message)

            answer = await self.runtime.serve(run, timeout, "request")
        else:
            answer = await self._next.request(self.call(**fields), message)
        self.last = copied(answer)
        return answer

    async def close(self, conn: Connection | None = None, *, timeout: float = math.inf, **fields: Any) -> None:
        """Close `conn` (default: the latest answer, else `sample_request()`'s connection)."""
        if conn is None:
            conn = sample_request().connection if self.last is None else self.last
        message: Connection = copied(conn)
        await anyio.lowlevel.checkpoint()
        if timeout < math.inf:

            async def run(deadline: float) -> None:
                await self._next.close(Call(self.runtime, deadline=deadline, **fields), message)

            await self.runtime.serve(run, timeout, "close")
        else:
            await self._next.close(self.call(**fields), message)

    @property
    def states(self) -> list[State]:
        """The state of every connection that was seen, oldest first; also of those that are closed."""
        return list(self._states.found.values())

    async def left(self) -> Left:
        """What is there once everything that can run has run; it takes no time."""
        await settled()
        return Left(
            slots=sorted(name for state in self.states for name in state.leftovers()),
            tasks=sorted(self.runtime.running),
            timers=len(self.runtime.timers),
        )


def with_begin(*elements: Layer[Next], begin: bool | None = None) -> Chain[Next]:
    """A chain of the elements, with a Begin on top when one of them keeps state and none opens it.

    `begin`: True puts one there in any case where none is, False never.
    """
    plain: Chain[Next] = Chain("rig", *elements)
    inside = list(plain.walk())
    wanted = any(map(_keeps_state, inside)) if begin is None else begin
    if wanted and not any(layer.gives_state for layer in inside):
        return Chain("rig", Begin(), *elements)
    return plain


def _keeps_state(layer: Layer[Next]) -> bool:
    return (
        owns_slot(layer) or any(kind.gives_state for kind in layer.needs) or any(map(_uses_slot, type(layer).__mro__))
    )


def _uses_slot(kind: type[Any]) -> bool:
    """Whether a method of the class names a slot that elements share as a global of their modules."""
    functions = [value for value in vars(kind).values() if isinstance(value, FunctionType)]
    return any(isinstance(fn.__globals__.get(name), Slot) for fn in functions for name in fn.__code__.co_names)


@asynccontextmanager
async def rig(
    *elements: Layer[Next],
    clock: Clock | None = None,
    observe: Observer | None = None,
    check: bool = True,
    begin: bool | None = None,
    drain: float = 2.0,
) -> AsyncGenerator[Rig, None]:
    """Bind and serve connection elements; open it in the test itself, never in a fixture.

    A `Begin` is put on top when an element keeps state, unless `begin` says otherwise. `check=False` leaves the order
    rules out, for an element
    without what it needs above. Under `virtual_time` the clock is the virtual one.
    """
    chain = with_begin(*elements, begin=begin)
    states, end = _States(observe), _End()
    role = _RigRole(chain, end, check)
    async with role.serving(clock=clock or current_clock(), observe=states, drain=drain) as running:
        yield Rig(chain, running, states, end.seen)


async def drive(
    *elements: Layer[Next],
    request: Request | None = None,
    requests: int = 1,
    close: bool = True,
    catch: type[BaseException] | tuple[type[BaseException], ...] = (),
    clock: Clock | None = None,
    observe: Observer | None = None,
    check: bool = True,
    begin: bool | None = None,
    timeout: float = math.inf,
    **fields: Any,
) -> Driven:
    """Request (`requests` times), then close, and answer the record.

    Errors come out as they are, unless `catch` names them; then they are in the record. After an error of the request
    nothing is closed here: undoing is the business of `Begin`. `fields` are those of `Call`; `timeout` is in seconds.
    """
    async with rig(*elements, clock=clock, observe=observe, check=check, begin=begin) as bench:
        connection: Connection | None = None
        caught: BaseException | None = None
        held = Left()
        try:
            for _ in range(requests):
                again = copied(sample_request() if request is None else request)
                connection = copied(await bench.request(again, timeout=timeout, **fields))
            held = await bench.left()
            if close:
                await bench.close(connection, timeout=timeout)
        except catch as error:
            caught = error
        left = await bench.left()
        return Driven(connection=connection, error=caught, seen=bench.seen, held=held, left=left, runtime=bench.runtime)
