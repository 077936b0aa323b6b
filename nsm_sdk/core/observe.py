# SPDX-License-Identifier: Apache-2.0
"""What runs in the place of a verb once a chain is bound.

Observers are put in at bind, so that "off" costs nothing: `Observer.wrap` gets every overridden verb of every element
once and returns what runs instead; `Timing` reports each step's time and outcome to a function. Elements from outside
of this package are `checked`: one that forgets to await, or returns nothing, gets an error that names it; what its code
shows for certain is refused when the chain is put together, before any call.
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from types import CodeType, CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from nsm_sdk.errors import ProgrammingError

if TYPE_CHECKING:
    from nsm_sdk.core.chain import Layer

STREAMING = frozenset({"find", "watch"})
"""Verbs that answer an asynchronous generator instead of a coroutine."""

Verb = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Place:
    """One verb of one element."""

    layer: Layer[Any]
    verb: str

    def __str__(self) -> str:
        return f"{type(self.layer).__name__}.{self.verb}"


class Observer(Protocol):
    """Wraps verbs at bind time."""

    def wrap(self, place: Place, verb: Verb) -> Verb:
        """What runs in the place of `verb`; must keep its shape (coroutine or asynchronous generator)."""
        ...


Report = Callable[[Place, Any, float, BaseException | None], None]
"""(place, call, seconds including everything below, error or None)"""


class Timing:
    """Tell `report` about each step after it has ended."""

    def __init__(self, report: Report, clock: Callable[[], float] = time.perf_counter) -> None:
        self._report = report
        self._clock = clock

    def wrap(self, place: Place, verb: Verb) -> Verb:
        """The verb, and a report when it has ended."""
        report, clock = self._report, self._clock

        async def observed(call: Any, subject: Any) -> Any:
            began = clock()
            try:
                answer = await verb(call, subject)
            except BaseException as error:
                report(place, call, clock() - began, error)
                raise
            report(place, call, clock() - began, None)
            return answer

        async def observed_stream(call: Any, subject: Any) -> AsyncGenerator[Any, None]:
            began = clock()
            stream = verb(call, subject)
            try:
                async for item in stream:
                    yield item
            except BaseException as error:
                report(place, call, clock() - began, error)
                raise
            finally:
                await stream.aclose()
            report(place, call, clock() - began, None)

        return observed_stream if place.verb in STREAMING else observed


# -- elements of others -----------------------------------------------------------------------------------------------

_OURS = __name__.partition(".")[0] + "."
_NOTHING: tuple[type[Any], ...] = ()


def is_foreign(method: Any) -> bool:
    """Whether a verb is written outside of this package."""
    return not str(getattr(method, "__module__", "")).startswith(_OURS)


def check_code(layer: Layer[Any], verb: str) -> None:
    """Raise ProgrammingError where the code of a verb shows for certain that it returns nothing, though it must, or
    calls the next element without `await`."""
    method = getattr(layer, verb)
    code = getattr(method, "__code__", None)
    if code is None or not is_foreign(method):
        return
    what, hint = _certain(code, verb, bool(layer.verb_results.get(verb)))
    if what:
        place = str(Place(layer, verb))
        raise ProgrammingError(f"{place} {what}", element=place, hint=hint)


@functools.lru_cache(maxsize=1024)
def _certain(code: CodeType, verb: str, must_return: bool) -> tuple[str, str]:
    """What is certainly wrong with a verb, and the remedy; empty where nothing is."""
    coroutine = bool(code.co_flags & inspect.CO_COROUTINE)
    if verb in STREAMING:
        if coroutine:
            return "is no asynchronous generator", "write `async def` with `yield` in it, or return next's generator"
        return "", ""
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        return "has a `yield` in it", "write it as a coroutine: `async def` with `return`"
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "NOP")]
    if coroutine and not any(step.opname in ("GET_AWAITABLE", "GET_ANEXT") for step in steps):
        name = code.co_varnames[3] if code.co_argcount > 3 else ""
        if any(_calls(step, verb) and _loads(before, name) for before, step in itertools.pairwise(steps)):
            return f"calls `{name}.{verb}` without `await`", f"write `await {name}.{verb}(...)`"
    if not (must_return or not coroutine):
        return "", ""
    nothing = [_returns_none(before, step) for before, step in zip([None, *steps], steps, strict=False)]
    if True in nothing and False not in nothing:
        remedy = f"end it with `return await next.{verb}(...)`, or with what that has returned"
        return "returns nothing", remedy if must_return else "write it with `async def`"
    return "", ""


def _calls(step: dis.Instruction, verb: str) -> bool:
    # From 3.12 on the lowest bit of LOAD_ATTR says that a call follows.
    called = step.opname == "LOAD_METHOD" or (step.opname == "LOAD_ATTR" and bool((step.arg or 0) & 1))
    return called and step.argval == verb


def _loads(step: dis.Instruction, name: str) -> bool:
    # From 3.13 on one instruction may load two names.
    last = step.argval[-1] if isinstance(step.argval, tuple) and step.argval else step.argval
    return step.opname.startswith("LOAD_FAST") and last == name


def _returns_none(before: dis.Instruction | None, step: dis.Instruction) -> bool | None:
    """Whether a step returns None; None if it returns not at all."""
    if step.opname == "RETURN_CONST":
        return step.argval is None
    if step.opname == "RETURN_VALUE":
        return before is not None and before.opname == "LOAD_CONST" and before.argval is None
    return None


def checked(layer: Layer[Any], verb: str, method: Callable[[Any, Any, Any], Any], next: Any) -> Verb:
    """The verb of an element of others, bound to `next`: ProgrammingError, with the element's name, when it returns
    what it must not, or has called `next` without waiting for it."""
    place, wanted = str(Place(layer, verb)), layer.verb_results.get(verb, _NOTHING)

    async def stream(call: Any, subject: Any) -> AsyncGenerator[Any, None]:
        items = method(call, subject, next)
        if not hasattr(items, "__aiter__"):
            raise _wrong(place, "returned", items, wanted)
        async with aclosing(items):
            async for item in items:
                if wanted and not isinstance(item, wanted):
                    raise _wrong(place, "yielded", item, wanted)
                yield item

    async def coroutine(call: Any, subject: Any) -> Any:
        begun: list[tuple[str, Any]] = []
        answer = method(call, subject, _noting(layer, next, begun))
        if not inspect.isawaitable(answer):
            raise _wrong(place, "returned", answer, wanted)
        try:
            answer = await answer
        except Exception as error:
            if (forgotten := _forgotten(place, begun)) is not None:
                raise forgotten from error
            raise
        if (forgotten := _forgotten(place, begun)) is not None:
            raise forgotten
        if isinstance(answer, CoroutineType) or (wanted and not isinstance(answer, wanted)):
            raise _wrong(place, "returned", answer, wanted)
        return answer

    return stream if verb in STREAMING else coroutine


def _noting(layer: Layer[Any], next: Any, begun: list[tuple[str, Any]]) -> Any:
    """A stand-in for `next` that notes the coroutines which it gives out."""

    def noting(verb: str, fn: Verb) -> Verb:
        def noted(call: Any, subject: Any) -> Any:
            made = fn(call, subject)
            begun.append((verb, made))
            return made

        return fn if verb in STREAMING else noted

    return layer.next_type(*(noting(verb, getattr(next, verb)) for verb in layer.verbs))


def _forgotten(place: str, begun: list[tuple[str, Any]]) -> ProgrammingError | None:
    """The error for a coroutine of `next` that was never awaited; it is closed."""
    found = None
    for verb, made in begun:
        if isinstance(made, CoroutineType) and inspect.getcoroutinestate(made) == inspect.CORO_CREATED:
            made.close()
            found = ProgrammingError(
                f"{place} called `next.{verb}` and did not await it",
                element=place,
                hint=f"write `await next.{verb}(...)`",
            )
    return found


def _wrong(place: str, did: str, what: Any, wanted: tuple[type[Any], ...]) -> ProgrammingError:
    if isinstance(what, CoroutineType):
        what.close()
        return ProgrammingError(
            f"{place} {did} a coroutine that it has not awaited", element=place, hint="write `await` before the call"
        )
    kinds = " or ".join(kind.__name__ for kind in wanted) or "a coroutine"
    return ProgrammingError(
        f"{place} {did} {'nothing' if what is None else f'an object of type {type(what).__name__}'}",
        element=place,
        hint=f"it must be {kinds}",
    )
