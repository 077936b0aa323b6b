# SPDX-License-Identifier: Apache-2.0
"""On to the next hop.

Does:  sends the request to where `call.url` points, and the close to where the request went. What it sent, and where,
       is noted before sending, so that an answer that never arrives does not hide what must be closed. Where the
       transport is certain that nothing was sent (`NotReached`), the note goes again, and there is nothing to close.
Place: last in a chain that continues elsewhere.
State: `FAR`, the far side of the connection; read by elements that follow the next hop (monitor, heal).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from nsm_sdk.api import Connection, Request, Snapshot
from nsm_sdk.core import Bound, Call, Cause, Dial, Element, Next, State, cleanup_time
from nsm_sdk.elements.answer import Asked
from nsm_sdk.elements.far import FAR, Far
from nsm_sdk.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotReached,
    NsmError,
    Unavailable,
    Unimplemented,
)

logger = logging.getLogger("nsm_sdk.elements")

MOVE_TIME = 2.0
"""Seconds for closing at the old next hop when a connection moves to another."""
LATER = 1.0
"""Seconds until a next hop that did not answer a close is told again, when the connection has moved elsewhere."""
CLOSE_SHARE = 0.8
"""Share of the remaining time that a close may spend on the next hop; the rest is for our own clean-up."""


class Connect(Element):
    """Go on over `dial`. Close tolerates a next hop that is gone: its own timers free what it held."""

    last = True
    far = FAR

    def __init__(self, dial: Dial) -> None:
        self.dial = dial

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        url = call.url
        if not url:
            raise FailedPrecondition("no next hop was chosen", hint="put an element that sets call.url above Connect")
        before = FAR.get(call)
        if before is not None and before.url != url:
            if before.lost:
                # It was told a moment ago and did not answer: the new way does not wait for it once more.
                self._leave_later(call, request.connection, before)
            else:
                await self._leave(call, request.connection, before)
        bound = self._reach(url)
        if bound.connection is None:
            raise Unimplemented(f"{url} offers no connections", hint="is this the address of a manager or an endpoint?")
        fresh = before is None or before.url != url
        if fresh:
            FAR.set(call, Far(url, bound, call.snapshot(request.connection)))
        elif before is not None and before.passed is not None:
            before.passed.take_out(request.connection)
        asked = Asked(request)
        call.unsent = False
        try:
            answer = await bound.connection.request(call, request)
        except BaseException as error:
            # Of an earlier request something may stand there; of one that never left, nothing. It may also have been
            # given up while the transport was dialing.
            # Who refuses because another has what is asked for has built nothing, and what stands there is not ours.
            if fresh and (call.unsent or isinstance(error, (NotReached, AlreadyExists))):
                FAR.pop(call)
            raise
        sent, passed = asked.accept(call, answer, url)
        FAR.set(call, Far(url, bound, sent, passed=passed))
        return answer

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        known = FAR.get(call)
        far = known or self._guess(call, conn)
        if far is None:
            return
        outer = call.deadline
        # Every transport keeps a call's deadline, which is all that is needed here: a scope would cost as much again as
        # the rest of this close.
        call.deadline = min(outer, call.runtime.clock.now() + max(call.remaining() * CLOSE_SHARE, 0.05))
        try:
            # What cannot be closed now, Begin closes later; only where a connection ends may somebody wait for it.
            ends = conn.path.index == 0 and call.cause in (Cause.CALL, Cause.CLOSE)
            await self._close(call, conn, far, patient=ends)
        except (Unavailable, DeadlineExceeded, TimeoutError, Cancelled) as error:
            # A Cancelled that is raised and not thrown at us is the peer's: it is shutting down.
            # Left in the slot on purpose: Begin closes again while the peer's token lives.
            logger.warning("%s: %s could not be told to close %s: %s", call.runtime.name, far.url, conn.id, error)
            # Nobody to tell of a connection that is a guess: whoever comes there later knows as little of it as we do.
            if known is not None or not isinstance(error, NotReached):
                FAR.set(call, replace(far, lost=True))
            return
        except InvalidRequest:
            # Refused as malformed: nothing can be held there under these ids, and asking again changes nothing.
            FAR.pop(call)
            raise
        finally:
            call.deadline = outer
        FAR.pop(call)

    def _reach(self, url: str) -> Bound:
        try:
            return self.dial(url)
        except InvalidRequest as error:
            # Not the caller's fault, who may be served by another next hop: peers register what they like.
            raise FailedPrecondition(
                f"the next hop has an address that cannot be used: {error.message}", hint=error.hint
            ) from error

    def _guess(self, call: Call, conn: Connection) -> Far | None:
        """Where a connection that this hop has forgotten (it was restarted) went, if somebody above could tell."""
        if not call.url or conn.path.index + 1 >= len(conn.path.path_segments):
            return None
        bound = self._reach(call.url)
        return None if bound.connection is None else Far(call.url, bound, Snapshot.of(conn))

    async def _leave(self, call: Call, conn: Connection, far: Far) -> None:
        """The connection moves elsewhere; its former next hop is told, but cannot keep it."""
        with cleanup_time(MOVE_TIME):
            try:
                await self._close(call, conn, far, patient=False)
            except NsmError as error:
                logger.warning("%s: leaving %s for %s: %s", call.runtime.name, far.url, call.url or "another", error)
        FAR.pop(call)

    def _leave_later(self, call: Call, conn: Connection, far: Far) -> None:
        runtime, stored = call.runtime, Snapshot.of(conn)

        async def leave() -> None:
            # A state of its own: the connection's is in use by now for the new next hop.
            late = Call(runtime, call.peer, call.metadata, runtime.clock.now() + MOVE_TIME, State(), Cause.CLOSE)
            await self._leave(late, stored.connection(), far)

        runtime.after(LATER, lambda: runtime.spawn(leave, "leave a next hop"))
        FAR.pop(call)

    async def _close(self, call: Call, conn: Connection, far: Far, *, patient: bool) -> None:
        assert far.bound.connection is not None
        closing = far.sent.connection()
        # The hops up to here have fresh tokens; what lies beyond is as the far side knows it.
        for ours, theirs in zip(
            conn.path.path_segments[: conn.path.index + 1], closing.path.path_segments, strict=False
        ):
            if ours.id == theirs.id:
                theirs.CopyFrom(ours)
        if far.passed is not None:
            far.passed.take_out(closing)
        before, call.patient = call.patient, patient
        try:
            await far.bound.connection.close(call, closing)
        finally:
            call.patient = before
