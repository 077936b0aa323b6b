# SPDX-License-Identifier: Apache-2.0
"""A forwarder's part: agrees on a mechanism with the client and one with the endpoint, and joins the two.

Does:  takes the first of the client's preferences that the datapath accepts, offers the endpoint what the datapath can
       join with it, keeps the two mechanisms apart, and makes them one datapath once the endpoint has answered. A
       refresh verifies and repairs; a close removes. What an earlier run has joined is taken up before the endpoint is
       asked.
Place: forwarders, above Connect.
State: the datapath's; the endpoint's mechanism and the type that was tried last, in slots; the events of each
       connection, to end one that its client has left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from nsm_sdk.api import Connection, Mechanism, Request, State
from nsm_sdk.core import Call, Done, Element, Events, Next, Outcome, Slot
from nsm_sdk.errors import AlreadyExists, Exhausted, FailedPrecondition
from nsm_sdk.mechanisms.ports import Datapath, Joint
from nsm_sdk.mechanisms.selection import first_accepted, note_interface


class Join(Element):
    """Joins clients with endpoints by `datapath`, which says what it accepts from clients and offers to endpoints.

    InvalidRequest for a connection with a mechanism that the datapath does not accept; FailedPrecondition for a request
    that asks for none that it accepts, or an endpoint that has chosen one that was not offered.
    """

    unique = True

    def __init__(self, datapath: Datapath) -> None:
        self.datapath = datapath
        self._tried = Slot[str]("mechanism tried")
        self._far = Slot[bytes]("endpoint's mechanism")
        self._refused = Slot[bool]("another client's")
        self._events: dict[str, Events] = {}

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        if not (self.datapath.needs_mechanism or conn.mechanism.type or request.mechanism_preferences):
            return await next.request(call, request)
        leg = _Leg(self, next)
        kinds = dict.fromkeys(self.datapath.accepted(conn), Next(leg.request, leg.undo))
        return await first_accepted(call, request, kinds, self._tried)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        # A request that failed may have left no mechanism in the connection.
        kind = self._tried.pop(call) or conn.mechanism.type
        if self._refused.pop(call):
            # What stands under this id was never this connection's; its own client asks for it, or it expires.
            await next.close(call, conn)
        elif kind in self.datapath.accepted(conn):
            await self._part(call, conn, next)
        else:
            await next.close(call, conn)

    async def _part(self, call: Call, conn: Connection, next: Next) -> None:
        self._events.pop(conn.id, None)
        try:
            await self.datapath.part(conn)
        finally:
            await close_far(call, conn, self._far, next)

    async def _connect(self, call: Call, request: Request, next: Next, left: Sequence[str]) -> Connection:
        """Have the endpoint's answer, and join the two mechanisms."""
        self._events[request.connection.id] = call.events
        offered = self.datapath.offered(request.connection)

        async def ask(call: Call, request: Request) -> Connection:
            request.mechanism_preferences.extend(offered)
            return await self._endpoint(call, request, next, left)

        conn = await request_far(call, request, self._far, ask)
        far = Mechanism.FromString(self._far.get(call) or b"")
        if far.type or self.datapath.needs_mechanism:
            _check(conn.mechanism, far, offered)
        for connection in await self.datapath.join(Joint(connection=conn, near=conn.mechanism, far=far)):
            # Closed at the endpoint too: its addresses are free.
            self._end(connection)
        return conn

    async def _endpoint(self, call: Call, request: Request, next: Next, left: Sequence[str]) -> Connection:
        """The endpoint's answer. What the same client has left is closed when there is one; at once, if the endpoint
        has no room for both."""
        if not any(connection in self._events for connection in left):
            return await next.request(call, request)
        attempt = Request()
        attempt.CopyFrom(request)
        try:
            return await next.request(call, attempt)
        except Exhausted:
            for connection in left:
                await self._end_now(connection)
        return await next.request(call, request)

    def _end(self, connection: str, done: Done | None = None) -> bool:
        events = self._events.pop(connection, None)
        if events is not None:
            events.close(done)
        return events is not None

    async def _end_now(self, connection: str) -> None:
        ended = anyio.Event()

        def done(outcome: Outcome, error: BaseException | None) -> None:
            ended.set()

        if self._end(connection, done):
            await ended.wait()

    def _take_up(self, call: Call, conn: Connection) -> bool:
        """Whether an earlier run of this forwarder has joined it: it stays joined, also if the endpoint does not answer
        now; and if that was restarted as well, it is to get the interface that it had."""
        known = self.datapath.claim(conn.id)
        if known is None or conn.state == State.RESELECT_REQUESTED:
            return False
        self._far.set(call, known.SerializeToString())
        call.events.adopt()
        return True


class _Leg:
    """One request's tries of the client's preferences, with what is below them."""

    __slots__ = ("_join", "_next", "_stands")

    def __init__(self, join: Join, next: Next) -> None:
        self._join = join
        self._next = next
        self._stands = False
        """What there is under this id was there before the request: no try may undo it."""

    async def request(self, call: Call, request: Request) -> Connection:
        join = self._join
        try:
            left = await join.datapath.admit(request.connection)
        except AlreadyExists:
            # What stands under this id is the other client's.
            self._stands = True
            if join._far.get(call) is None:
                join._refused.set(call, True)
            call.events.adopt()
            raise
        join._refused.pop(call)
        self._stands = self._stands or join._far.get(call) is not None or join._take_up(call, request.connection)
        return await join._connect(call, request, self._next, left)

    async def undo(self, call: Call, conn: Connection) -> None:
        if not self._stands:
            await self._join._part(call, conn, self._next)


def _check(near: Mechanism, far: Mechanism, offered: Sequence[Mechanism]) -> None:
    kinds = [one.type for one in offered]
    if far.type not in kinds:
        has = far.type[:64] or "no mechanism"
        raise FailedPrecondition(
            f"a client with {near.type[:64]} and an endpoint with {has} cannot be joined here",
            hint=f"this forwarder joins {near.type[:64]} with {', '.join(kinds) or 'nothing'}",
        )


async def request_far(
    call: Call, request: Request, far: Slot[bytes], ask: Callable[[Call, Request], Awaitable[Connection]]
) -> Connection:
    """Sends a request on with the mechanism that is in `far` in the place of its own, and without its preferences.
    Returns the answer with the former mechanism; that of the answer is in `far` then."""
    near = _taken(request.connection)
    _give(request.connection, far.get(call))
    del request.mechanism_preferences[:]
    conn = await ask(call, request)
    answered = _taken(conn)
    if answered is None:
        # An empty mechanism is not the same: an endpoint would look for one without a type.
        far.pop(call)
    else:
        far.set(call, answered)
    note_interface(conn, "client_interface", conn.mechanism)
    _give(conn, near)
    return conn


async def close_far(call: Call, conn: Connection, far: Slot[bytes], next: Next) -> None:
    """Sends a close on with the mechanism that is in `far`, and empties it."""
    near = _taken(conn)
    _give(conn, far.pop(call))
    try:
        await next.close(call, conn)
    finally:
        _give(conn, near)


def _taken(conn: Connection) -> bytes | None:
    return conn.mechanism.SerializeToString() if conn.HasField("mechanism") else None


def _give(conn: Connection, raw: bytes | None) -> None:
    if raw is None:
        conn.ClearField("mechanism")
    else:
        conn.mechanism.CopyFrom(Mechanism.FromString(raw))
