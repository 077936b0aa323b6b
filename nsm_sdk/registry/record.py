# SPDX-License-Identifier: Apache-2.0
"""What `Begin` remembers of one registration.

Does:  holds, beside what every record has, the entry as it was answered last.
Place: used by `Begin` of this room alone.
State: one record per name, until it is unregistered.
"""

from __future__ import annotations

from typing import Any, Generic

from nsm_sdk.core import Call, E, Kind, RegistryNext
from nsm_sdk.elements.turns import Owned, Posts, Turns, time_of


class Record(Owned, Generic[E]):
    """One name of this hop, its `id`. `version` counts registrations."""

    __slots__ = ("_data", "_kind", "next")

    def __init__(self, turns: Turns[Record[E]], kind: Kind[E], name: str, call: Call, next: RegistryNext[E]) -> None:
        super().__init__(name, call)
        self.events = Posts(turns, self)
        self.next = next
        self._kind = kind
        self._data = b""

    def attempt(self, entry: E) -> int:
        """A first registration begins: this is what to undo if it fails. Answers how many bytes it has."""
        self._data = entry.SerializeToString()
        return len(self._data)

    def remember(self, registered: E) -> int:
        """What was answered, under the name that the caller uses; without the expiry, which is to be found anew.
        Answers how many bytes that has."""
        stored = self._kind.copy(registered)
        stored.name = self.id
        if "expiration_time" in stored.DESCRIPTOR.fields_by_name:
            stored.ClearField("expiration_time")
        self._data = stored.SerializeToString()
        self.established = True
        self.version += 1
        return len(self._data)

    def remember_call(self, call: Call, remaining: float) -> None:
        """The call that succeeded; `remaining` is the time it had when it began."""
        self.timeout = time_of(remaining)
        # The call is over with this, so what it held can be kept as it is.
        self.peer, self.metadata, self.onward = call.peer, call.metadata, call.onward

    def entry(self) -> E:
        """A copy of the stored entry."""
        message: Any = self._kind.message.FromString(self._data)
        stored: E = message
        return stored
