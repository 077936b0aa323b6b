# SPDX-License-Identifier: Apache-2.0
"""What `Begin` remembers of one registration.

Does:  holds the state of a name, the entry as it was answered last, and the posts that wait; `Posts` is the `Events`
       that elements see.
Place: used by `Begin` of this room alone.
State: one record per name, until it is unregistered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic

from nsm_sdk.core import (
    NOBODY,
    Call,
    Cause,
    Done,
    E,
    Events,
    Kind,
    Outcome,
    Peer,
    RegistryNext,
    Runtime,
    State,
    Still,
)

if TYPE_CHECKING:
    from nsm_sdk.registry.begin import Begin

DEFAULT_TIMEOUT = 15.0
"""Seconds for what Begin starts itself, when the registration came without a deadline."""


class Post:
    """One posted event that has not run yet; duplicates have joined it."""

    __slots__ = ("dones", "stills", "version")

    def __init__(self) -> None:
        self.version = 0
        self.dones: list[Done] = []
        self.stills: list[Still | None] = []

    def join(self, version: int, done: Done | None, still: Still | None) -> None:
        """Somebody posts it, at that version of the record."""
        self.version = version
        self.stills.append(still)
        if done is not None:
            self.dones.append(done)

    def wanted(self) -> bool:
        """Whether anybody who posted wants it still."""
        return any(still is None or still() for still in self.stills)

    def tell(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Let everybody who posted know how it ended."""
        for done in self.dones:
            done(outcome, error)


class Record(Generic[E]):
    """One name of this hop."""

    __slots__ = (
        "_data",
        "_kind",
        "established",
        "events",
        "metadata",
        "name",
        "next",
        "onward",
        "peer",
        "posts",
        "runtime",
        "state",
        "timeout",
        "version",
    )

    def __init__(self, begin: Begin[E], kind: Kind[E], name: str, call: Call, next: RegistryNext[E]) -> None:
        self.name = name
        self.runtime: Runtime = call.runtime
        self.next = next
        self.state = State()
        self.events: Events = Posts(begin, self)
        self.established = False
        self.version = 0
        """Counts registrations: a close that was posted before the last one is needless."""
        self.timeout = DEFAULT_TIMEOUT
        self.peer: Peer = NOBODY
        self.metadata: Mapping[str, str] = {}
        self.onward: Mapping[str, str] = {}
        self.posts: dict[Cause, Post] = {}
        self._kind = kind
        self._data = b""

    def attempt(self, entry: E) -> None:
        """A first registration begins: this is what to undo if it fails."""
        self._data = entry.SerializeToString()

    def remember(self, registered: E) -> None:
        """What was answered, under the name that the caller uses; without the expiry, which is to be found anew."""
        stored = self._kind.copy(registered)
        stored.name = self.name
        if "expiration_time" in stored.DESCRIPTOR.fields_by_name:
            stored.ClearField("expiration_time")
        self._data = stored.SerializeToString()
        self.established = True
        self.version += 1

    def remember_call(self, call: Call, remaining: float) -> None:
        """The call that succeeded; `remaining` is the time it had when it began."""
        self.timeout = remaining if 0 < remaining < float("inf") else DEFAULT_TIMEOUT
        # The call is over with this, so what it held can be kept as it is.
        self.peer, self.metadata, self.onward = call.peer, call.metadata, call.onward

    def entry(self) -> E:
        """A copy of the stored entry."""
        message: Any = self._kind.message.FromString(self._data)
        stored: E = message
        return stored

    def call(self, cause: Cause, timeout: float) -> Call:
        """A fresh `Call` for something that Begin starts itself."""
        return Call(
            self.runtime,
            self.peer,
            self.metadata,
            self.runtime.clock.now() + timeout,
            self.state,
            cause,
            events=self.events,
            onward=dict(self.onward),
        )


class Posts(Events, Generic[E]):
    """The events of one name: a refresh registers again, a close unregisters.

    A close is needless once the name has been registered anew.
    """

    __slots__ = ("_begin", "_record")

    def __init__(self, begin: Begin[E], record: Record[E]) -> None:
        self._begin = begin
        self._record = record

    def refresh(self, done: Done | None = None, still: Still | None = None) -> None:
        self._begin.post(self._record, Cause.REFRESH, done, still)

    def close(self, done: Done | None = None) -> None:
        self._begin.post(self._record, Cause.CLOSE, done)
