# SPDX-License-Identifier: Apache-2.0
"""What `Begin` remembers of one connection.

Does:  holds the connection's state, the last request that succeeded, and the posts that wait; `Posts` is the `Events`
       that elements see.
Place: used by `Begin` alone.
State: one record per connection id, until its close has succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nsm_sdk.api import Connection, Request, Snapshot, expiry
from nsm_sdk.core import NOBODY, Call, Cause, Done, Events, Next, Outcome, Peer, Runtime, State, Still, Timer

if TYPE_CHECKING:
    from nsm_sdk.elements.begin import Begin

Edit = Callable[[Request], None]

DEFAULT_TIMEOUT = 15.0
"""Seconds for what Begin starts itself, when the first request came without a deadline."""


class Post:
    """One posted event that has not run yet; duplicates have joined it."""

    __slots__ = ("cause", "dones", "edit", "stills")

    def __init__(self, cause: Cause, edit: Edit | None) -> None:
        self.cause = cause
        self.edit = edit
        self.dones: list[Done] = []
        self.stills: list[Still | None] = []

    def needed(self) -> bool:
        """Whether anybody who posted wants it still."""
        return any(still is None or still() for still in self.stills)

    def tell(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Let everybody who posted know how it ended."""
        for done in self.dones:
            done(outcome, error)


class Record:
    """One connection of this hop."""

    __slots__ = (
        "attempts",
        "closing_since",
        "conn",
        "established",
        "events",
        "id",
        "metadata",
        "next",
        "peer",
        "posts",
        "preferences",
        "retry",
        "returned",
        "runtime",
        "state",
        "timeout",
    )

    def __init__(self, begin: Begin, id: str, call: Call, next: Next) -> None:
        self.id = id
        self.runtime: Runtime = call.runtime
        self.next = next
        self.state = State()
        self.events: Events = Posts(begin, self)
        self.established = False
        self.conn: Snapshot | None = None
        """The connection as it was last answered from below, or, before that, as it was requested."""
        self.returned: Snapshot | None = None
        """The connection as the caller was last given it."""
        self.preferences = b""
        remaining = call.remaining()
        self.timeout = remaining if 0 < remaining < float("inf") else DEFAULT_TIMEOUT
        self.peer: Peer = NOBODY
        self.metadata: Mapping[str, str] = {}
        self.posts: dict[Cause, Post] = {}
        self.retry: Timer | None = None
        self.attempts = 0
        self.closing_since = 0.0
        """Wall time of the first attempt to close that left something."""

    def remember(self, call: Call, preferences: bytes, conn: Connection) -> None:
        """A request has succeeded: this is what refreshes and closes start from."""
        self.established = True
        self.attempts = 0
        self.conn = Snapshot.of(conn)
        self.preferences = preferences
        self.peer = call.peer
        self.metadata = call.metadata

    def request(self) -> Request:
        """A copy of the stored request."""
        request = Request.FromString(self.preferences)
        if self.conn is not None:
            request.connection.CopyFrom(self.conn.connection())
        return request

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
        )

    def expires(self) -> float:
        """Wall time after which nobody downstream holds anything for this connection, as far as its path tells."""
        segments = () if self.conn is None else self.conn.connection().path.path_segments
        times = [at for segment in segments if (at := expiry(segment)) is not None]
        if not self.attempts:
            self.closing_since = self.runtime.clock.wall()
        # Where nobody says, a fixed time: one counted from now would never come.
        return max(times, default=self.closing_since + DEFAULT_TIMEOUT)

    def stop_retry(self) -> None:
        """No further attempt to close what an earlier close has left."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


class Posts(Events):
    """The events of one connection."""

    __slots__ = ("_begin", "_record")

    def __init__(self, begin: Begin, record: Record) -> None:
        self._begin = begin
        self._record = record

    def refresh(self, done: Done | None = None, still: Still | None = None) -> None:
        self._begin.post(self._record, Cause.REFRESH, None, done, still)

    def reselect(self, edit: Edit | None = None, done: Done | None = None, still: Still | None = None) -> None:
        self._begin.post(self._record, Cause.RESELECT, edit, done, still)

    def close(self, done: Done | None = None) -> None:
        self._begin.post(self._record, Cause.CLOSE, None, done)
