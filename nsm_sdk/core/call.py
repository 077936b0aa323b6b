# SPDX-License-Identifier: Apache-2.0
"""What travels beside a message through a chain.

`Call` is the first argument of every verb: who calls, until when, why, and the state of the connection. `Events`
lets an element ask for a later refresh, reselect or close of its connection. A `Slot` names one typed value of a
connection's `State`, which `Begin` owns from the first request to the close.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, final

import anyio

from nsm_sdk.api.snapshot import Snapshot
from nsm_sdk.errors import ProgrammingError

if TYPE_CHECKING:
    from nsm_sdk.api import Connection, Request
    from nsm_sdk.core.runtime import Runtime


class Cause(StrEnum):
    """Why a verb runs."""

    CALL = "call"
    REFRESH = "refresh"
    RESELECT = "reselect"
    CLOSE = "close"
    ROLLBACK = "rollback"


class Outcome(StrEnum):
    """How a posted event ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The connection was closed, or another event made this one needless."""


Done: TypeAlias = Callable[[Outcome, BaseException | None], None]
"""Told how a posted event ended; called in the task that ran it, must not block or raise."""
Still: TypeAlias = Callable[[], bool]
"""Asked when a posted event's turn has come whether it is needed still; False skips it, unless others want it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who calls, as far as the transport knows."""

    address: str = ""
    identity: str = ""
    """SPIFFE id that the transport has verified; empty without mutual TLS."""


NOBODY = Peer()
_EMPTY: Mapping[str, str] = MappingProxyType({})


def _empty() -> Mapping[str, str]:
    return _EMPTY


class Events:
    """Posts for the connection at hand; nothing runs before the current verb has ended.

    Duplicates of one kind coalesce; a close makes pending refreshes and reselects needless.
    """

    def refresh(self, done: Done | None = None, still: Still | None = None) -> None:
        """Send the stored request down again."""
        raise ProgrammingError("no Begin stands above: a connection's events are not available here")

    def reselect(
        self,
        edit: Callable[[Request], None] | None = None,
        done: Done | None = None,
        still: Still | None = None,
    ) -> None:
        """Close below, then request anew. `edit` changes the copy of the stored request; default: forget the
        endpoint, the mechanism and all that they have given, and say RESELECT_REQUESTED."""
        raise ProgrammingError("no Begin stands above: a connection's events are not available here")

    def adopt(self) -> None:
        """What the request at hand is about was there before it: should it fail, nothing is undone, and what is held is
        released when the caller's token expires. For elements that find what an earlier run of their hop has made."""

    def close(self, done: Done | None = None) -> None:
        """Close the connection."""
        raise ProgrammingError("no Begin stands above: a connection's events are not available here")


NO_EVENTS = Events()


@dataclass(slots=True, eq=False)
class Call:
    """One call of one verb on one hop."""

    runtime: Runtime
    peer: Peer = NOBODY
    # Out of the repr, as everything that may hold tokens.
    metadata: Mapping[str, str] = field(default_factory=_empty, repr=False)
    """What the caller sent beside its message (gRPC metadata; keys in lower case)."""
    deadline: float = math.inf
    """When the caller stops waiting, by `runtime.clock.now()`."""
    state: State | None = field(default=None, repr=False)
    cause: Cause = Cause.CALL
    url: str = ""
    """Where the next hop listens; set by whoever chooses it."""
    events: Events = NO_EVENTS
    patient: bool = True
    """Whether to wait for a next hop that is not there yet; else its absence is final at once."""
    onward: dict[str, str] = field(default_factory=dict, repr=False)
    """Metadata to send to the next hop."""
    answer: dict[str, str] = field(default_factory=dict, repr=False)
    """Metadata to send back to the caller, as response headers."""
    answered: Mapping[str, str] = field(default_factory=_empty, repr=False)
    """Response headers of the next hop."""
    unsent: bool = False
    """Set by a transport as long as it is certain that nothing of the call has left for the next hop: it is dialing."""
    size: int = 0
    """Bytes of the message as it came from a peer; 0 where it is our own."""
    _taken: Snapshot | None = field(default=None, init=False, repr=False)

    def snapshot(self, conn: Connection) -> Snapshot:
        """What `conn` is now, to be stored; elements of one hop that store the same connection share one snapshot."""
        taken = Snapshot.of(conn)
        if self._taken is not None and taken == self._taken:
            return self._taken
        self._taken = taken
        return taken

    def remaining(self) -> float:
        """Seconds until the deadline, never below 0; infinity without one."""
        return max(self.deadline - self.runtime.clock.now(), 0.0)


@contextmanager
def narrowed(call: Call, seconds: float) -> Iterator[None]:
    """Give what runs inside at most `seconds`; raises TimeoutError when they end before the caller's own time."""
    outer = call.deadline
    mine = call.runtime.clock.now() + seconds
    if mine >= outer:
        yield
        return
    call.deadline = mine
    try:
        with anyio.fail_after(seconds):
            yield
    finally:
        call.deadline = outer


def cleanup_time(seconds: float) -> anyio.CancelScope:
    """Shielded, bounded time for undoing something, used by `with`: no cancellation from outside reaches inside."""
    return anyio.move_on_after(seconds, shield=True)


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
