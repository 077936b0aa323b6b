# SPDX-License-Identifier: Apache-2.0
"""On to the next hop.

Does:  sends the request to where `call.url` points, and the close to where the request went. What it sent, and where,
       is noted before sending, so that an answer that never arrives does not hide what must be closed. Where the
       transport is certain that nothing was sent (`NotReached`), the note goes again, and there is nothing to close.
Place: last in a chain that continues elsewhere.
State: `NEXT_HOP`, the far side of the connection; read by elements that follow the next hop (monitor, heal).
"""

from __future__ import annotations

import logging
import os
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nsm_sdk.api import KERNEL, Connection, Kernel, Request, Snapshot, describe
from nsm_sdk.api.limits import excess
from nsm_sdk.api.mechanism import namespace_identity
from nsm_sdk.core import Bound, Call, Cause, Dial, Element, Next, Slot, State, cleanup_time
from nsm_sdk.errors import (
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotReached,
    NsmError,
    Unavailable,
    Unimplemented,
)


@dataclass(frozen=True, slots=True)
class NextHop:
    """The next hop of a connection."""

    url: str
    bound: Bound
    sent: Snapshot
    """The connection as it was last sent there, or as it was last answered."""
    lost: bool = False
    """It did not answer when it was told to close."""
    passed: PassedFile | None = None
    """The file in its answer that has no URL here."""


NEXT_HOP: Slot[NextHop] = Slot("next hop")


FILE = Kernel.netns_url.key
"""The mechanism parameter that names a file: a network namespace, or the socket of a memif interface."""
_INODE = "inode://"
_HINT = "the next hop is not to be relied upon: look at its log, and at its version"


class SentConnection:
    """What is sent, as far as the answer must agree with it."""

    __slots__ = ("files", "id", "index", "way")

    def __init__(self, request: Request) -> None:
        conn = request.connection
        self.files = asked_files(request)
        self.id = conn.id
        self.index = conn.path.index
        self.way = [(hop.name, hop.id) for hop in conn.path.path_segments[: self.index + 1]]

    def check_answer(self, call: Call, answer: Connection, url: str) -> tuple[Snapshot, PassedFile | None]:
        """The answer of the hop at `url`, put right, and the file of its mechanism that came without a name.

        DataLoss for one that is about something else.
        """
        path = answer.path
        way = [(hop.name, hop.id) for hop in path.path_segments[: self.index + 1]]
        if way != self.way:
            raise DataLoss(
                f"{url} was asked for connection {self.id!r} and answered with another: {describe(answer)}", hint=_HINT
            )
        if answer.id != self.id:
            answer.id = self.id
        if path.index != self.index:
            path.index = self.index
        passed = self._restore(answer)
        snapshot = call.snapshot(answer)
        if what := excess(answer):
            raise DataLoss(f"{url} answered too much for connection {self.id!r}: {what}", hint=_HINT)
        return snapshot, passed

    def _restore(self, answer: Connection) -> PassedFile | None:
        """Put the URL that was asked with back into a mechanism that names the same file by its inode."""
        if not answer.HasField("mechanism"):
            return None
        inode = answer.mechanism.parameters.get(FILE, "")
        if not inode.startswith(_INODE):
            return None
        asked = self.files.get(answer.mechanism.type, [])
        if inode in asked:
            return None  # the caller speaks of it so
        same = next((one for one in asked if _inode_of(one) == inode), "")
        if not same and asked and answer.mechanism.type == KERNEL:
            # Of a kernel interface the namespace is the caller's, seen from here or not.
            same = asked[0]
        if same:
            answer.mechanism.parameters[FILE] = same
            return None
        return PassedFile(inode, asked[0] if asked else "")


@dataclass(frozen=True, slots=True)
class PassedFile:
    """A file that the next hop names by the inode of a descriptor which it has sent, and how it is named to that hop.

    A Go peer waits for the descriptor of any inode that it reads, until the call ends; none is sent from here.
    """

    inode: str
    asked: str
    """The URL that was asked with; empty: none."""

    def take_out(self, conn: Connection) -> None:
        """Name the file as it was named when it was asked for."""
        if not conn.HasField("mechanism") or conn.mechanism.parameters.get(FILE, "") != self.inode:
            return
        if self.asked:
            conn.mechanism.parameters[FILE] = self.asked
        else:
            del conn.mechanism.parameters[FILE]


def asked_files(request: Request) -> Mapping[str, list[str]]:
    """The file URLs that a request names, by type of mechanism; those of its preferences first."""
    files: dict[str, list[str]] = {}
    conn = request.connection
    for mechanism in (*request.mechanism_preferences, *([conn.mechanism] if conn.HasField("mechanism") else [])):
        if url := mechanism.parameters.get(FILE, ""):
            files.setdefault(mechanism.type, []).append(url)
    return files


def named_files(request: Request) -> list[str]:
    """The file URLs that a request names."""
    return [url for urls in asked_files(request).values() for url in urls]


def is_elsewhere(urls: Iterable[str], conn: Connection) -> bool:
    """Whether none of these file URLs is that of the connection's mechanism: who names them lives somewhere else, in
    spite of its name. False where one of the two sides does not say, or only the connection's file is gone."""
    urls, known = list(urls), conn.mechanism.parameters.get(FILE, "")
    if not urls or not known or known in urls:
        return False
    place, places = namespace_identity(known), set(map(namespace_identity, urls))
    # Where neither is seen from here, what they are called is all there is.
    return places == {None} if place is None else place not in places


def _inode_of(url: str) -> str:
    """How a Go peer names the file; empty for what is no file here."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "file":
            return ""
        found = os.stat(urllib.parse.unquote(parts.path))
    except (OSError, ValueError):
        return ""
    return f"{_INODE}{found.st_dev}/{found.st_ino}"


class ClientUrl(Element):
    """The next hop is `url`; an empty one leaves it to whoever chose before."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.url = self.url or call.url
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        call.url = self.url or call.url
        await next.close(call, conn)


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
    far = NEXT_HOP

    def __init__(self, dial: Dial) -> None:
        self.dial = dial

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        url = call.url
        if not url:
            raise FailedPrecondition("no next hop was chosen", hint="put an element that sets call.url above Connect")
        before = NEXT_HOP.get(call)
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
            NEXT_HOP.set(call, NextHop(url, bound, call.snapshot(request.connection)))
        elif before is not None and before.passed is not None:
            before.passed.take_out(request.connection)
        asked = SentConnection(request)
        call.unsent = False
        try:
            answer = await bound.connection.request(call, request)
        except BaseException as error:
            # Of an earlier request something may stand there; of one that never left, nothing. It may also have been
            # given up while the transport was dialing.
            # Who refuses because another has what is asked for has built nothing, and what stands there is not ours.
            if fresh and (call.unsent or isinstance(error, (NotReached, AlreadyExists))):
                NEXT_HOP.pop(call)
            raise
        sent, passed = asked.check_answer(call, answer, url)
        NEXT_HOP.set(call, NextHop(url, bound, sent, passed=passed))
        return answer

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        known = NEXT_HOP.get(call)
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
                NEXT_HOP.set(call, replace(far, lost=True))
            return
        except InvalidRequest:
            # Refused as malformed: nothing can be held there under these ids, and asking again changes nothing.
            NEXT_HOP.pop(call)
            raise
        finally:
            call.deadline = outer
        NEXT_HOP.pop(call)

    def _reach(self, url: str) -> Bound:
        try:
            return self.dial(url)
        except InvalidRequest as error:
            # Not the caller's fault, who may be served by another next hop: peers register what they like.
            raise FailedPrecondition(
                f"the next hop has an address that cannot be used: {error.message}", hint=error.hint
            ) from error

    def _guess(self, call: Call, conn: Connection) -> NextHop | None:
        """Where a connection that this hop has forgotten (it was restarted) went, if somebody above could tell."""
        if not call.url or conn.path.index + 1 >= len(conn.path.path_segments):
            return None
        bound = self._reach(call.url)
        return None if bound.connection is None else NextHop(call.url, bound, Snapshot.of(conn))

    async def _leave(self, call: Call, conn: Connection, far: NextHop) -> None:
        """The connection moves elsewhere; its former next hop is told, but cannot keep it."""
        with cleanup_time(MOVE_TIME):
            try:
                await self._close(call, conn, far, patient=False)
            except NsmError as error:
                logger.warning("%s: leaving %s for %s: %s", call.runtime.name, far.url, call.url or "another", error)
        NEXT_HOP.pop(call)

    def _leave_later(self, call: Call, conn: Connection, far: NextHop) -> None:
        runtime, stored = call.runtime, Snapshot.of(conn)

        async def leave() -> None:
            # A state of its own: the connection's is in use by now for the new next hop.
            late = Call(runtime, call.peer, call.metadata, runtime.clock.now() + MOVE_TIME, State(), Cause.CLOSE)
            await self._leave(late, stored.connection(), far)

        runtime.after(LATER, lambda: runtime.spawn(leave, "leave a next hop"))
        NEXT_HOP.pop(call)

    async def _close(self, call: Call, conn: Connection, far: NextHop, *, patient: bool) -> None:
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
