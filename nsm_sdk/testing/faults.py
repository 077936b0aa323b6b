# SPDX-License-Identifier: Apache-2.0
"""One fault at the n-th point of a run.

Does:  `Faults` is an observer: bound into the chains of every hop of a run, it counts the points where something can go
       wrong, and lets one thing go wrong at one of them. `fault_points` and `explore` do that for every point.
Place: property tests: whatever happens wherever, nothing may be left.
State: the count of one run.

Points, in the order in which they are met, numbered from 0 within the kind:

    FAIL    a verb of an element is about to run, or a stream is about to give an item: raise instead
    LOSE    a verb has done its work: raise instead of answering
    CANCEL  somebody waits: cancel the caller's scope, as a caller that went away
    ABORT   somebody waits: cancel the caller's task natively, as grpc.aio does
    ACT     somebody waits: call `act`, for example a role's `kill`

Under virtual time, every moment between two turns of the loop is such a point as well.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import anyio

from nsm_sdk.core import STREAMING, Place
from nsm_sdk.errors import ProgrammingError, Unavailable
from nsm_sdk.testing.doubles import Failure, made
from nsm_sdk.testing.virtual import VirtualLoop, run_virtual

T = TypeVar("T")


class Fault(StrEnum):
    """What goes wrong."""

    FAIL = "fail"
    LOSE = "lose"
    CANCEL = "cancel"
    ABORT = "abort"
    ACT = "act"


_WAITING = frozenset({Fault.CANCEL, Fault.ABORT, Fault.ACT})


@dataclass(slots=True)
class Ended(Generic[T]):
    """How the call of a run ended."""

    answer: T | None = None
    error: BaseException | None = None
    """What came out; a `CancelledError` when the caller was cancelled."""


class Faults:
    """An observer for all hops of one run; `at=None` only counts."""

    def __init__(
        self,
        fault: Fault = Fault.FAIL,
        at: int | None = None,
        *,
        error: Failure | None = None,
        act: Callable[[], object] | None = None,
    ) -> None:
        self.fault = fault
        self.at = at
        self.act = act
        """What `ACT` calls; a scenario may set it."""
        self.points = 0
        """How many points were met."""
        self.struck = ""
        """Where the fault struck; empty if it did not."""
        self._error = error or (lambda: Unavailable("a fault was injected"))
        self._counting = False
        self._bubbling = False
        self._turns = 0
        self._scope: anyio.CancelScope | None = None
        self._caller: asyncio.Task[Any] | None = None

    async def run(self, call: Coroutine[Any, Any, T]) -> Ended[T]:
        """Await `call` as the caller whom CANCEL and ABORT mean, and count meanwhile; answers how it ended.

        What was begun meanwhile may still be running; then `await settled()`.
        """
        self._caller = asyncio.current_task()
        self._counting = True
        ended: Ended[T] = Ended()
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            loop.on_turn = self._turn
        try:
            with anyio.CancelScope() as self._scope:
                try:
                    ended.answer = await _Steps(self, call, "the caller")
                except asyncio.CancelledError as error:
                    ended.error = error
                    if self._struck_natively():
                        # The cancellation was ours; the scenario goes on.
                        assert self._caller is not None
                        self._caller.uncancel()
                    else:
                        raise
                except Exception as error:
                    ended.error = error
        finally:
            self._counting = False
            self._scope = self._caller = None
            if isinstance(loop, VirtualLoop):
                loop.on_turn = None
        return ended

    def _struck_natively(self) -> bool:
        return bool(self.struck) and self.fault is Fault.ABORT

    def wrap(self, place: Place, verb: Any) -> Any:
        """For `Role.serving(observe=...)` and `bind`."""
        name = str(place)

        async def faulty(call: Any, subject: Any) -> Any:
            self.point(Fault.FAIL, name)
            answer = await _Steps(self, verb(call, subject), name)
            self.point(Fault.LOSE, name)
            return answer

        async def faulty_stream(call: Any, subject: Any) -> AsyncGenerator[Any, None]:
            self.point(Fault.FAIL, name)
            async with aclosing(verb(call, subject)) as stream:
                async for item in stream:
                    self.point(Fault.FAIL, f"{name} (an item)")
                    yield item

        return faulty_stream if place.verb in STREAMING else faulty

    def point(self, fault: Fault, name: str) -> None:
        """A point of kind `fault` is met; for code of a scenario that is no element."""
        if self._counting and fault is self.fault and self._mine():
            self.struck = f"point {self.at} ({fault}), at {name}"
            raise made(self._error)

    def waits(self, name: str) -> None:
        """Somebody waits at `name`."""
        if self._counting and self.fault in _WAITING and self._mine():
            self._strike(f"while waiting in {name}")

    def _turn(self) -> None:
        self._turns += 1
        if self._counting and self.fault in _WAITING and self._mine():
            self._strike(f"before turn {self._turns}")

    def _strike(self, where: str) -> None:
        self.struck = f"point {self.at} ({self.fault}), {where}"
        if self.fault is Fault.CANCEL and self._scope is not None:
            self._scope.cancel()
        elif self.fault is Fault.ABORT and self._caller is not None:
            self._caller.cancel()
        elif self.fault is Fault.ACT and self.act is not None:
            self.act()

    def _mine(self) -> bool:
        number, self.points = self.points, self.points + 1
        return number == self.at

    def __repr__(self) -> str:
        return f"Faults({self.fault}, at={self.at}{', struck: ' + self.struck if self.struck else ''})"


class _Steps(Generic[T]):
    """Awaits a coroutine and reports each time it waits; of wrappers inside each other only the innermost does."""

    def __init__(self, faults: Faults, work: Coroutine[Any, Any, T], name: str) -> None:
        self._faults = faults
        self._work = work
        self._name = name

    def __await__(self) -> Generator[Any, Any, T]:
        faults, work = self._faults, self._work
        sent: Any = None
        thrown: BaseException | None = None
        while True:
            faults._bubbling = False
            try:
                waits_for = work.send(sent) if thrown is None else work.throw(thrown)
            except StopIteration as done:
                answer: T = done.value
                return answer
            if not faults._bubbling:
                faults._bubbling = True
                faults.waits(self._name)
            sent, thrown = None, None
            try:
                sent = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                thrown = error


Scenario = Callable[[Faults], Coroutine[Any, Any, object]]
"""Builds what it needs, runs `await faults.run(...)` once, and asserts what must hold whatever happened."""


def fault_points(
    scenario: Scenario,
    *,
    kinds: Iterable[Fault] = (Fault.FAIL, Fault.LOSE, Fault.CANCEL, Fault.ABORT),
    error: Failure | None = None,
    stride: int = 1,
    run: Callable[[Scenario, Faults], object] = run_virtual,
) -> Iterator[Faults]:
    """One `Faults` for each point of `scenario`, after one run without faults that counts them.

    `stride` takes every n-th point only. `run` runs a scenario; by default in virtual time.
    """
    for fault in kinds:
        counting = Faults(fault, error=error)
        run(scenario, counting)
        if not counting.points:
            raise ProgrammingError(
                f"no point for {fault} in this scenario",
                hint="bind the chains with the scenario's Faults as observer, and call `await faults.run(...)`",
            )
        for at in itertools.islice(itertools.count(), 0, counting.points, stride):
            yield Faults(fault, at, error=error)


def explore(
    scenario: Scenario,
    *,
    kinds: Iterable[Fault] = (Fault.FAIL, Fault.LOSE, Fault.CANCEL, Fault.ABORT),
    error: Failure | None = None,
    stride: int = 1,
    run: Callable[[Scenario, Faults], object] = run_virtual,
) -> list[Faults]:
    """Run `scenario` once for each point; an error it raises gets a note that names the fault. Answers the runs."""
    runs: list[Faults] = []
    for faults in fault_points(scenario, kinds=kinds, error=error, stride=stride, run=run):
        try:
            run(scenario, faults)
        except BaseException as failed:
            failed.add_note(f"with {faults!r}")
            raise
        runs.append(faults)
    return runs
