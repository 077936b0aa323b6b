# SPDX-License-Identifier: Apache-2.0
"""Order, rollback and re-entry, so that no other element has to care.

Does:  lets one event at a time through per connection id, in order of arrival. A first request that fails is answered
       at once and undone by closing below, unless its path goes on beyond this hop: then the connection lives, this hop
       was restarted, and what it took up stays until the caller's token expires. What an element posts (refresh,
       reselect, close) runs later, in a task of its own. A close runs every element whatever fails; what is left over
       is closed again until the token expires.
Place: below `UpdatePath` (it needs the connection's id), above everything that keeps state.
State: one `Record` per connection.
"""

from __future__ import annotations

import logging

from nsm_sdk.api import Connection, Request, Snapshot, State, describe, expiry
from nsm_sdk.core import Backoff, Call, Cause, Done, Element, Next, Outcome, Still, Timer, cleanup_time
from nsm_sdk.core import State as Slots
from nsm_sdk.elements.connect import FILE, is_elsewhere, named_files
from nsm_sdk.elements.event_queue import DEFAULT_TIMEOUT, Edit, EventQueue, Post, QueuedRecord, RecordEvents
from nsm_sdk.elements.merge import merge, only_wishes, wish_again, wishes
from nsm_sdk.elements.timeout import close_after
from nsm_sdk.errors import InvalidRequest, pushback


class Record(QueuedRecord):
    """One connection of this hop."""

    __slots__ = (
        "asked",
        "attempts",
        "closing_since",
        "conn",
        "next",
        "preferences",
        "refused",
        "retry",
        "returned",
        "taken_up",
    )

    def __init__(self, queue: EventQueue[Record], id: str, call: Call, next: Next) -> None:
        super().__init__(id, call)
        self.events = ConnectionEvents(queue, self)
        self.next = next
        self.conn: Snapshot | None = None
        """The connection as it was last answered from below, or, before that, as it was requested."""
        self.returned: Snapshot | None = None
        """The connection as the caller was last given it."""
        self.asked = b""
        """Payload, labels and context that the caller has asked for, as far as they can be told from what was given."""
        self.taken_up = False
        """The connection lived before this hop knew of it, and no request through this hop has succeeded yet."""
        self.refused = False
        """Somebody else has asked for the connection, from another namespace, and has not got it."""
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

    def refuse(self, preferences: bytes) -> None:
        """A request with these mechanism preferences has failed. What stands is not undone by one who lives elsewhere
        and has asked for it under the same name."""
        urls = named_files(Request.FromString(preferences))
        if self.conn is not None and is_elsewhere(urls, self.conn.connection()):
            self.refused = True

    def is_foreign(self, conn: Connection) -> bool:
        """Whether `conn`, which is to be closed, comes from one who was refused: it names no namespace or another."""
        if not self.refused or self.conn is None:
            return False
        url = conn.mechanism.parameters.get(FILE, "")
        return not url or is_elsewhere([url], self.conn.connection())

    def remember(self, call: Call, preferences: bytes, conn: Snapshot) -> None:
        """A request has succeeded: this is what refreshes and closes start from."""
        if self.refused and self.conn is not None:
            # One who lives elsewhere may have got it after all.
            before, after = (one.connection().mechanism.parameters.get(FILE, "") for one in (self.conn, conn))
            self.refused = before == after
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


class ConnectionEvents(RecordEvents[Record]):
    """The events of one connection."""

    __slots__ = ()

    def adopt(self) -> None:
        if not self._record.established:
            self._record.take_up()

    def reselect(self, edit: Edit | None = None, done: Done | None = None, still: Still | None = None) -> None:
        self._queue.post(self._record, Cause.RESELECT, edit, done, still)


logger = logging.getLogger("nsm_sdk.elements")


async def close_below(next: Next, call: Call, stored: Snapshot) -> list[Exception]:
    """Close through the chain; after a failure run each element's close alone, so that none blocks another."""
    try:
        await next.close(call, stored.connection())
    except Exception as error:
        logger.info("%s: close of %s: %s", call.runtime.name, describe(stored.connection()), error)
    else:
        return []
    errors: list[Exception] = []
    for closer in next.closers:
        try:
            await closer(call, stored.connection())
        except Exception as error:
            errors.append(call.runtime.explain(error))
    return errors


def raise_first(errors: list[Exception]) -> None:
    """Raise the first, with the others as notes; nothing where there are none."""
    if not errors:
        return
    first, *others = errors
    for other in others:
        first.add_note(f"also: {other}")
    raise first


logger = logging.getLogger("nsm_sdk.elements")

UNDO_TIME = 2.0
"""Seconds that undoing a failed first request, or finishing a close that was cut off, may take at a time."""
UNDOING = frozenset({Cause.ROLLBACK, Cause.CLOSE})
"""What a hop that shuts down in good order still finishes."""
CLOSE_FIRST = 0.2
"""Share of the time of a reselect that closing the old may take; the request that follows cleans up what is left."""
RETRIES = Backoff(1.0, 30.0)
"""Pauses between attempts to close what is left over."""


def forget_endpoint(request: Request) -> None:
    """The usual edit of a reselect: any endpoint, any mechanism, and the hops below shall know why."""
    request.connection.ClearField("mechanism")
    request.connection.network_service_endpoint_name = ""
    request.connection.state = State.RESELECT_REQUESTED


def lives_beyond(conn: Connection) -> bool:
    """Whether hops to the right of this one have the connection: an answer of theirs has written the path that far.

    A connection that selects anew has left them.
    """
    return len(conn.path.path_segments) > conn.path.index + 1 and conn.state != State.RESELECT_REQUESTED


def has_left(conn: Connection, record: Record) -> bool:
    """Whether `conn`, which is to be closed, comes by a hop that the connection has left for another: the path is not
    the one that it was requested by last, and the client's token is an older one."""
    if record.conn is None or not conn.path.path_segments or not 0 < conn.path.index < len(conn.path.path_segments):
        return False
    known, index = record.conn.connection().path, conn.path.index
    if known.index != index or index >= len(known.path_segments):
        return False
    came, last = conn.path.path_segments[index - 1], known.path_segments[index - 1]
    if (came.name, came.id) == (last.name, last.id):
        return False
    told, newer = expiry(conn.path.path_segments[0]), expiry(known.path_segments[0])
    return told is not None and newer is not None and told < newer


MOST = 65_536
"""Connections of one hop. Peers make them, and each takes memory, so there must be an end."""
MOST_BYTES = 256 << 20
"""Bytes of all of them together: 4 KiB each if there are as many as there may be, which is four times the usual."""


class Begin(Element):
    """Own the connections of this hop. `merges`: the caller is an application that may hold a stale connection.
    `most`: how many there may be, and `most_bytes` how long all of them together; Exhausted for more."""

    gives_state = True
    unique = True

    def __init__(self, *, merges: bool = False, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self.merges = merges
        self._queue: EventQueue[Record] = EventQueue(
            "begin", self._run, most=most, most_bytes=most_bytes, things="connections", finishes=UNDOING
        )
        self._records, self._locks = self._queue.records, self._queue.locks

    # -- what callers ask for ---------------------------------------------------------------------------------------

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn_id = request.connection.id
        if not conn_id:
            raise InvalidRequest(
                "a connection needs an id", hint="put UpdatePath above Begin, or give the connection an id"
            )
        self._queue.admit(conn_id, call.size)
        await self._locks.acquire(conn_id)
        record = self._records.get(conn_id)
        if record is None:
            record = self._records[conn_id] = Record(self._queue, conn_id, call, next)
            if lives_beyond(request.connection):
                record.take_up()
        record.stop_retry()
        handed_over = False
        preferences = b""
        try:
            call.state, call.events = record.state, record.events
            if record.established:
                await self._catch_up(record, request)
            if not record.established or record.taken_up:
                record.conn = call.snapshot(request.connection)
                record.asked = wishes(request.connection).SerializeToString()
                self._queue.weigh(record, len(record.conn.data))
            if request.mechanism_preferences:
                preferences = Request(mechanism_preferences=request.mechanism_preferences).SerializeToString()
            conn = await next.request(call, request)
            self._remember(record, call, preferences, conn)
            if self.merges:
                record.returned = record.conn
            return conn
        except BaseException:
            if not record.established:
                handed_over = self._finish_later(record, Cause.ROLLBACK)
            else:
                if not self.merges:
                    record.refuse(preferences)
                if record.taken_up:
                    self._keep(record, call, request.connection)
            raise
        finally:
            if not handed_over:
                self._locks.release(conn_id)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        conn_id = conn.id
        await self._locks.acquire(conn_id)
        record = self._records.get(conn_id)
        handed_over = False
        try:
            if record is None:
                # Nobody knows it here; elements that find their things by tag still get to see it.
                call.state = Slots()
                errors = await close_below(next, call, Snapshot.of(conn))
            elif record.established and has_left(conn, record):
                logger.info("%s: not closed by a hop that it has left: %s", call.runtime.name, describe(conn))
                errors = []
            elif record.established and record.is_foreign(conn):
                logger.info("%s: not closed by another of the same name: %s", call.runtime.name, describe(conn))
                errors = []
            else:
                errors = await self._close(record, call)
            raise_first(errors)
        except BaseException as error:
            # The caller went away in the middle: what has begun is finished without it.
            if record is not None and not isinstance(error, Exception):
                handed_over = self._finish_later(record, Cause.CLOSE)
            raise
        finally:
            if not handed_over:
                self._locks.release(conn_id)

    async def _catch_up(self, record: Record, request: Request) -> None:
        """Bring a repeated request and what is stored together, before it goes down."""
        if request.connection.state == State.RESELECT_REQUESTED and not self.merges:
            if record.conn is not None and is_elsewhere(named_files(request), record.conn.connection()):
                # Whether that one may take the connection over is found out below; until then it stands as it is.
                conn = request.connection
                conn.state = State.UP
                del conn.path.path_segments[conn.path.index + 1 :]
                return
            await self._close_first(record, record.call(Cause.RESELECT, record.timeout))
        elif self.merges and record.returned is not None and record.conn is not None:
            if record.returned is record.conn and Snapshot.of(request.connection) == record.conn:
                return  # the caller gives back what it was given, and nothing has changed meanwhile
            returned, wanted = record.returned.connection(), Connection.FromString(record.asked)
            record.asked = wish_again(wanted, returned, request.connection).SerializeToString()
            merged = merge(returned, request.connection, record.conn.connection())
            request.connection.CopyFrom(merged)

    def _keep(self, record: Record, call: Call, asked: Connection) -> None:
        """A connection that was taken up could not be refreshed. What elements hold for it by now is released when the
        caller's token expires, unless the caller asks or closes before. The caller holds the lock."""
        if not record.state:
            self._queue.drop(record)
            return
        record.peer, record.metadata = call.peer, call.metadata
        expires = record.refreshed(asked)
        assert record.conn is not None
        self._queue.weigh(record, len(record.conn.data))
        life = max(expires - record.runtime.clock.wall(), 0.0)

        def lapse() -> None:
            record.retry = None
            self._queue.spawn(record, Cause.CLOSE, lambda: self._lapse(record))

        record.retry = record.runtime.after(close_after(life, record.timeout), lapse)

    async def _lapse(self, record: Record) -> None:
        await self._locks.acquire(record.id)
        try:
            # Who asked meanwhile has the connection, or has set the next timer.
            if self._queue.holds(record) and record.taken_up and record.retry is None:
                await self._undo(record, Cause.CLOSE)
        finally:
            self._locks.release(record.id)

    async def _close_first(self, record: Record, call: Call) -> None:
        """Close below because another request follows at once; failures are only logged."""
        record.established = record.taken_up = False
        assert record.conn is not None
        for error in await close_below(record.next, call, record.conn):
            logger.warning("%s: closing before selecting anew failed: %s", record.runtime.name, error)

    # -- closing ----------------------------------------------------------------------------------------------------

    async def _close(self, record: Record, call: Call) -> list[Exception]:
        """Close below what is stored. Nothing left: the record goes; else a retry is due."""
        record.stop_retry()
        record.established = record.taken_up = False
        for cause in (Cause.REFRESH, Cause.RESELECT):
            if (post := record.posts.pop(cause, None)) is not None:
                post.tell(Outcome.SKIPPED)
        call.state, call.events = record.state, record.events
        assert record.conn is not None
        errors = await close_below(record.next, call, record.conn)
        if errors or record.state:
            self._retry_later(record, errors)
        else:
            self._queue.drop(record)
        return errors

    def _retry_later(self, record: Record, errors: list[Exception]) -> None:
        left = record.expires() - record.runtime.clock.wall()
        what = "; ".join(map(str, errors)) or f"not released yet: {', '.join(record.state.leftovers())}"
        if left <= 0:
            logger.warning("%s: gave up closing %s: %s", record.runtime.name, record.id, what)
            self._queue.drop(record)
            return
        pause = min(RETRIES.pause(record.attempts), left)
        pause = max(pause, *map(pushback, errors), 0.0)
        record.attempts += 1
        logger.info("%s: will close %s again in %.1f s: %s", record.runtime.name, record.id, pause, what)

        def again() -> None:
            record.retry = None
            if self._queue.holds(record) and not record.established:
                self._queue.spawn(record, Cause.CLOSE, lambda: self._close_again(record))

        record.retry = record.runtime.after(pause, again)

    async def _close_again(self, record: Record) -> None:
        await self._locks.acquire(record.id)
        try:
            if self._queue.holds(record) and not record.established:
                await self._undo(record, Cause.CLOSE)
        finally:
            self._locks.release(record.id)

    def _finish_later(self, record: Record, cause: Cause) -> bool:
        """Close below in a task of its own that takes over the lock; False when this hop has been killed."""
        return self._queue.hand_over(record, cause, lambda: self._undo(record, cause))

    async def _undo(self, record: Record, cause: Cause) -> None:
        """Close what there is, shielded and in bounded time. The caller holds the lock."""
        with cleanup_time(UNDO_TIME) as scope:
            for error in await self._close(record, record.call(cause, UNDO_TIME)):
                logger.warning("%s: %s of %s: %s", record.runtime.name, cause, record.id, error)
        if scope.cancelled_caught:
            self._retry_later(record, [])

    async def _run(self, record: Record, post: Post, call: Call) -> None:
        """Do what an element has posted."""
        if post.cause is Cause.CLOSE:
            raise_first(await self._close(record, call))
            return
        request = record.request()
        if post.cause is Cause.RESELECT:
            try:
                await self._close_first(record, record.call(Cause.RESELECT, record.timeout * CLOSE_FIRST))
            finally:
                # Established it stays, also when the close took all the time: what is stored is what the next attempt
                # starts from, too.
                record.established = True
            if post.edit is None:
                only_wishes(request, Connection.FromString(record.asked))
                forget_endpoint(request)
            else:
                post.edit(request)
        conn = await record.next.request(call, request)
        self._remember(record, call, record.preferences, conn)

    def _remember(self, record: Record, call: Call, preferences: bytes, conn: Connection) -> None:
        conn.state = State.UP
        stored = call.snapshot(conn)
        # The answer may be longer than what was asked. If there is no room for it, a first request is undone.
        size = len(stored.data) + len(preferences)
        self._queue.admit(record.id, size)
        self._queue.weigh(record, size)
        record.remember(call, preferences, stored)

    def __len__(self) -> int:
        return len(self._records)

    def lives(self, id: str) -> bool:
        """Whether a Request of that connection has succeeded here and it has not been closed since."""
        record = self._records.get(id)
        return record is not None and record.established

    def ids(self) -> list[str]:
        """Ids of the connections that this hop knows."""
        return list(self._records)

    def slots(self) -> dict[str, list[str]]:
        """Names of the slots that are set, by connection id; for diagnostics."""
        return {key: record.state.leftovers() for key, record in self._records.items()}
