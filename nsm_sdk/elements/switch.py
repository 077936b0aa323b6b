# SPDX-License-Identifier: Apache-2.0
"""Alternatives.

Does:  sends each connection through the first branch whose condition holds, and then on to what follows the switch;
       past all branches if none holds. The choice is kept from the first request to the close.
Place: below `Begin`, anywhere.
State: the choice, one per connection.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, CloseFn, Element, Layer, Next, Observer, Slot
from nsm_sdk.errors import ProgrammingError

Condition: TypeAlias = Callable[[Call, Connection], bool]
"""Looks at the connection as it is requested."""


def otherwise(call: Call, conn: Connection) -> bool:
    """Always true: the condition of a last branch."""
    return True


@dataclass(frozen=True, slots=True)
class Case:
    """One branch: its name, when it is taken, and an element or a chain."""

    label: str
    when: Condition
    then: Layer[Next]


class Switch(Element):
    """Take the first of `cases` whose condition holds. `name` is that of the switch, in chains that are shown."""

    def __init__(self, name: str, *cases: Case) -> None:
        for at, one in enumerate((name, *cases)):
            if isinstance(one, Case) is (at == 0):
                raise ProgrammingError(
                    f"argument {at} of a switch is {one!r}: it takes its own name first, and then cases",
                    hint='for example Switch("payload", Case("ethernet", is_ethernet, Bridge()))',
                )
        self.name = name
        self._cases = cases
        self._taken = Slot[int](f"switch {name}")
        labels = [case.label for case in cases]
        if len(set(labels)) < len(labels):
            raise ProgrammingError(f"switch {name!r} has two branches of one name", hint="name each branch differently")

    def children(self) -> Mapping[str, Layer[Next]]:
        return {case.label: case.then for case in self._cases}

    def bind(self, next: Next, observe: Observer | None = None) -> Next:
        branches = [case.then.bind(next, observe) for case in self._cases] + [next]
        taken = self._taken

        def request(call: Call, request: Request) -> Coroutine[Any, Any, Connection]:
            at = taken.get(call)
            if at is None:
                at = taken.set(call, self._choose(call, request.connection))
            return branches[at].request(call, request)

        async def close(call: Call, conn: Connection) -> None:
            at = taken.get(call)
            # Without a choice nothing has gone through any branch.
            await (next if at is None else branches[at]).close(call, conn)
            taken.pop(call)

        async def forget(call: Call, conn: Connection) -> None:
            taken.pop(call)

        closers = [
            self._only(at, closer)
            for at, branch in enumerate(branches)
            for closer in branch.closers[: len(branch.closers) - len(next.closers)]
        ]
        return Next(request, close, (*closers, forget, *next.closers))

    def _choose(self, call: Call, conn: Connection) -> int:
        holds = (at for at, case in enumerate(self._cases) if case.when(call, conn))
        return next(holds, len(self._cases))

    def _only(self, branch: int, closer: CloseFn) -> CloseFn:
        async def close(call: Call, conn: Connection) -> None:
            if self._taken.get(call) == branch:
                await closer(call, conn)

        return close
