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

    def get(self, call: Call) -> T | None:
        """The value of this connection, or None."""
        value: T | None = self._state(call).get(self)
        return value

    def set(self, call: Call, value: T) -> T:
        """Replace the value; answers it."""
        self._state(call)[self] = value
        return value

    def pop(self, call: Call) -> T | None:
        """Remove and answer the value, or None."""
        value: T | None = self._state(call).pop(self, None)
        return value

    def _state(self, call: Call) -> State:
        state = call.state
        if state is None:
            raise ProgrammingError(f"slot {self.name!r} used where no Begin opened the connection's state")
        return state

    def __repr__(self) -> str:
        return f"Slot({self.name!r})"
