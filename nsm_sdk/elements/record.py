# SPDX-License-Identifier: Apache-2.0
"""What `Begin` remembers of one connection.

Does:  holds, beside what every record has, the last request that succeeded, and when to close again what is left.
Place: used by `Begin` alone.
State: one record per connection id, until its close has succeeded.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Request, Snapshot, expiry
from nsm_sdk.core import Call, Cause, Done, Next, Still, Timer
from nsm_sdk.elements.turns import DEFAULT_TIMEOUT, Edit, Owned, Posts, Turns


class Record(Owned):
    """One connection of this hop."""

    __slots__ = ("asked", "attempts", "closing_since", "conn", "next", "preferences", "retry", "returned", "taken_up")

    def __init__(self, turns: Turns[Record], id: str, call: Call, next: Next) -> None:
        super().__init__(id, call)
        self.events = Reselecting(turns, self)
        self.next = next
        self.conn: Snapshot | None = None
        """The connection as it was last answered from below, or, before that, as it was requested."""
        self.returned: Snapshot | None = None
        """The connection as the caller was last given it."""
        self.asked = b""
        """Payload, labels and context that the caller has asked for, as far as they can be told from what was given."""
        self.taken_up = False
        """The connection lived before this hop knew of it, and no request through this hop has succeeded yet."""
        self.preferences = b""
        self.retry: Timer | None = None
        self.attempts = 0
        self.closing_since = 0.0
        """Wall time of the first attempt to close that left something."""

    def take_up(self) -> None:
        """The connection lives, though this hop does not know it: a request that fails is a refresh that fails."""
        self.established = self.taken_up = True

    def refreshed(self, asked: Connection) -> float:
        """Take the tokens that a request has brought, though it failed. Returns the wall time when the caller's one
        expires; at the first hop of a path, when the last of all does."""
        assert self.conn is not None
        conn = self.conn.connection()
        index = conn.path.index
        for kept, came in zip(conn.path.path_segments[: index + 1], asked.path.path_segments, strict=False):
            if (kept.name, kept.id) == (came.name, came.id):
                kept.CopyFrom(came)
        self.conn = Snapshot.of(conn)
        caller = expiry(conn.path.path_segments[index - 1]) if index else None
        return self.expires() if caller is None else caller

    def remember(self, call: Call, preferences: bytes, conn: Snapshot) -> None:
        """A request has succeeded: this is what refreshes and closes start from."""
        self.established = True
        self.taken_up = False
        self.attempts = 0
        self.conn = conn
        self.preferences = preferences
        self.peer = call.peer
        self.metadata = call.metadata

    def request(self) -> Request:
        """A copy of the stored request."""
        request = Request.FromString(self.preferences)
        if self.conn is not None:
            request.connection.CopyFrom(self.conn.connection())
        return request

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


class Reselecting(Posts[Record]):
    """The events of one connection."""

    __slots__ = ()

    def adopt(self) -> None:
        if not self._record.established:
            self._record.take_up()

    def reselect(self, edit: Edit | None = None, done: Done | None = None, still: Still | None = None) -> None:
        self._turns.post(self._record, Cause.RESELECT, edit, done, still)
