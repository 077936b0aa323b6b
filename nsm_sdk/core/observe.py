# SPDX-License-Identifier: Apache-2.0
"""Observers: put in when a chain is bound, so that "off" costs nothing.

Does:  `Observer.wrap` gets every overridden verb of every element once, at bind, and answers what runs instead.
       `Timing` reports each step's time and outcome to a function.
Place: argument of `Role.serving` and of `bind`.
State: none of its own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

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
