# SPDX-License-Identifier: Apache-2.0
"""Telling peers what becomes of this hop's connections.

Does:  publishes each connection in the hub when it is established, refreshed, changed by the next hop, lost or closed;
       what the next hop says comes from the `Follower`, so that a loss travels to the client hop by hop.
Place: below `Timeout`, so that an expiry is published as a close; above what changes the connection for this hop.
State: per connection, what was published last, and the following of the next hop.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, EventType, Request, Snapshot, State
from nsm_sdk.core import Call, Cause, Element, Next, Slot
from nsm_sdk.elements.connect import NEXT_HOP, is_elsewhere, named_files
from nsm_sdk.elements.monitor_client import Follower, Following, Heard, News
from nsm_sdk.elements.monitor_server import Hub
from nsm_sdk.errors import AlreadyExists


class Shown:
    """What was published of one connection, and who listens to the next hop for it."""

    __slots__ = ("far_url", "following", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.following: Following | None = None
        self.far_url = ""

    def stop(self) -> None:
        """Listen no longer."""
        if self.following is not None:
            self.following.stop()
            self.following = None


class Monitor(Element):
    """Publish into `hub`; with a `follower`, also what the next hop says."""

    def __init__(self, hub: Hub, follower: Follower | None = None) -> None:
        self.hub = hub
        self.follower = follower
        self._shown: Slot[Shown] = Slot("monitor")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        shown = self._shown.get(call)
        anew = request.connection.state == State.RESELECT_REQUESTED
        since = 0 if self.follower is None else self.follower.mark()
        urls = named_files(request) if shown is not None else []
        try:
            conn = await next.request(call, request)
        except AlreadyExists:
            # It may come from another who asks for what this connection has; that one is as it was.
            raise
        except Exception:
            # Nor does it fare worse because somebody else of its name, who lives elsewhere, asks for nonsense.
            if shown is not None and not is_elsewhere(urls, shown.snapshot.connection()):
                self._publish(shown, _with_state(shown.snapshot, State.DOWN))
            raise
        published = _with_state(Snapshot.of(conn), State.UP) if conn.state == State.RESELECT_REQUESTED else conn
        # The answer tells the caller, the event only others; what this hop does by itself is news to the caller, too.
        # After a close for a reselect, which is told at once, so is the success: in between there is no connection.
        routine = call.cause is Cause.CALL and not anew
        stored = call.snapshot(published)
        if shown is None:
            shown = self._shown.set(call, Shown(self.hub.update(published, routine=routine, snapshot=stored)))
        else:
            shown.snapshot = self.hub.update(published, routine=routine, snapshot=stored)
        self._follow(call, conn, shown, since)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        shown = self._shown.pop(call)
        if shown is not None:
            shown.stop()
        try:
            await next.close(call, conn)
        finally:
            if shown is not None:
                self.hub.delete(shown.snapshot, routine=call.cause is Cause.CALL)

    def _publish(self, shown: Shown, conn: Connection) -> None:
        shown.snapshot = self.hub.update(conn)

    def _follow(self, call: Call, conn: Connection, shown: Shown, since: int) -> None:
        far = NEXT_HOP.get(call)
        if self.follower is None or far is None:
            return
        if shown.following is not None and shown.far_url == far.url:
            shown.following.confirmed()
            return
        shown.stop()
        shown.far_url = far.url
        shown.following = self.follower.follow(conn, far, lambda heard: self._heard(shown, heard), since=since)

    def _heard(self, shown: Shown, heard: Heard) -> None:
        known = shown.snapshot.connection()
        if heard.news is News.REFUSED:
            return
        if heard.conn is None:
            if known.state != State.DOWN:
                self._publish(shown, _with_state(shown.snapshot, State.DOWN))
            return
        state = State.DOWN if heard.kind is EventType.DELETE else heard.conn.state
        if heard.kind is EventType.INITIAL_STATE_TRANSFER and state == known.state:
            return
        # The way up to here is not the next hop's to tell.
        own = known.path.index + 1
        del known.path.path_segments[own:]
        known.path.path_segments.extend(heard.conn.path.path_segments[own:])
        known.context.CopyFrom(heard.conn.context)
        known.state = state
        if Snapshot.of(known) != shown.snapshot:
            self._publish(shown, known)


def _with_state(snapshot: Snapshot, state: State) -> Connection:
    conn = snapshot.connection()
    conn.state = state
    return conn
