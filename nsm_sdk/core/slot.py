# SPDX-License-Identifier: Apache-2.0
"""Typed per-connection state.

Does:  a `Slot` names one value of a connection's state; its identity is the key, its name is for people.
Place: made by an element (`self._held = Slot[Lease]("lease")`), or by a module where sharing is on purpose.
State: lives in the `State` that `Begin` owns, from the first request to the close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from nsm_sdk.errors import ProgrammingError

if TYPE_CHECKING:
    from nsm_sdk.core.call import Call

T = TypeVar("T")


@final
class State(dict["Slot[Any]", Any]):
    """All slots of one connection; made and dropped by `Begin`."""

    __slots__ = ()

    def leftovers(self) -> list[str]:
        """Names of slots that are still set."""
        return sorted(slot.name for slot in self)


@final
class Slot(Generic[T]):
    """One typed value per connection."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    # Written out three times: a call of a helper would be half of what these cost.
    def get(self, call: Call) -> T | None:
        """The value of this connection, or None."""
        state = call.state
        if state is None:
            raise self._no_state()
        value: T | None = state.get(self)
        return value

    def set(self, call: Call, value: T) -> T:
        """Replace the value; answers it."""
        state = call.state
        if state is None:
            raise self._no_state()
        state[self] = value
        return value

    def pop(self, call: Call) -> T | None:
        """Remove and answer the value, or None."""
        state = call.state
        if state is None:
            raise self._no_state()
        value: T | None = state.pop(self, None)
        return value

    def _no_state(self) -> ProgrammingError:
        return ProgrammingError(f"slot {self.name!r} used where no Begin opened the connection's state")

    def __repr__(self) -> str:
        return f"Slot({self.name!r})"
