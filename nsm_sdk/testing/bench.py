# SPDX-License-Identifier: Apache-2.0
"""What there is to know of an element before it can be checked, and the bench that it is checked on.

Does:  `Contract` says how an element is made, what must stand round it and which fields are its own; `Bench` puts it
       between two probes, over doubles, and says what it left.
Place: under the points of the contract.
State: a bench knows what the element's services have begun at the start.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nsm_sdk.api import Request
from nsm_sdk.core import END, Chain, Element, Next
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.testing.doubles import Probe
from nsm_sdk.testing.rig import Left, Rig, rig
from nsm_sdk.testing.samples import sample_request

Factory = Callable[[], Element]


class ContractError(ProgrammingError):
    """An element breaks its contract; the message lists the points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What there is to know about an element before it can be checked."""

    factory: Factory | None = None
    """A new element with new services."""
    joined: Callable[[Next], Element] | None = None
    """Instead of `factory`, for an element that ends a chain and goes on by other means: given what is there."""
    request: Callable[[], Request] = sample_request
    """A request that the element can serve."""
    above: Callable[[], Sequence[Element]] = tuple
    """Elements that must stand above it, besides Begin."""
    below: Callable[[], Sequence[Element]] = tuple
    """Elements that must stand below it."""
    owns: frozenset[str] = frozenset()
    """Fields it may change, as dotted names in a Request: "connection.context.ip_context", "mechanism_preferences"."""
    secrets: tuple[str, ...] = ()
    """Texts that must not be in its repr."""
    keeps: frozenset[str] = frozenset()
    """Names of background tasks that its services begin with a request and keep; those begun at the start are known."""
    keeps_timers: int = 0
    """How many timers its services set with a request and keep."""
    skips: Mapping[int, str] = field(default_factory=dict)
    """Points that do not apply, with the reason."""

    def __post_init__(self) -> None:
        if (self.factory is None) == (self.joined is None):
            raise ProgrammingError("a Contract needs a factory", hint="give either factory= or joined=")


class Bench:
    """The element between doubles."""

    def __init__(self, contract: Contract, *doubles: Element) -> None:
        self.contract = contract
        self._start = Left()
        self.top, self.bottom = Probe(), Probe()
        rest = (self.bottom, *doubles)
        if contract.joined is not None:
            joined = Chain("below", *rest, *contract.below()).bind(END)
            self.element = contract.joined(joined)
            self.elements: tuple[Element, ...] = (*contract.above(), self.top, self.element)
        else:
            assert contract.factory is not None
            self.element = contract.factory()
            self.elements = (*contract.above(), self.top, self.element, *rest, *contract.below())

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Rig, None]:
        """The rig; what its services have begun at the start is theirs."""
        async with rig(*self.elements, check=False, begin=True) as running:
            self._start = await running.left()
            yield running

    async def left(self, running: Rig) -> Left:
        """What is left, without what the services keep."""
        left = await running.left()
        known = self.contract.keeps.union(self._start.tasks)
        left.tasks = [name for name in left.tasks if name not in known]
        left.timers = max(left.timers - self._start.timers - self.contract.keeps_timers, 0)
        return left
