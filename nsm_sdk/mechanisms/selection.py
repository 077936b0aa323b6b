# SPDX-License-Identifier: Apache-2.0
"""Which mechanism: the first of the caller's preferences that can be built.

Does:  a connection that has a mechanism goes to that type's branch. One without tries the preferences in the caller's
       order, each on a copy of the request, closing below what failed before the next try. Close goes to the branch
       that was tried last, else that of the connection's type, and below in any case.
Place: Mechanisms in endpoints; what it goes by also in Join, for the side of a forwarder that faces the client.
State: the type tried last, in a slot; branches are bound onto the same next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import END, Call, Element, Layer, Next, Observer, Place, Slot, cleanup_time
from nsm_sdk.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NsmError,
    from_status,
    pushback,
)

logger = logging.getLogger("nsm_sdk.mechanisms")
_UNDO = 2.0


class Mechanisms(Element):
    """One branch for each mechanism type: `Mechanisms(KERNEL=KernelServer())`.

    `unasked`: whether a request that asks for no mechanism at all goes straight on, instead of being refused.
    """

    def __init__(
        self, branches: Mapping[str, Layer[Next]] | None = None, /, *, unasked: bool = False, **more: Layer[Next]
    ) -> None:
        self.branches: dict[str, Layer[Next]] = {**(branches or {}), **more}
        self.unasked = unasked
        self._tried = Slot[str]("mechanism tried")

    def children(self) -> Mapping[str, Layer[Next]]:
        return self.branches

    def bind(self, next: Next, observe: Observer | None = None) -> Next:
        bound = {kind: branch.bind(next, observe) for kind, branch in self.branches.items()}

        async def request(call: Call, request: Request) -> Connection:
            if self.unasked and not request.connection.mechanism.type and not request.mechanism_preferences:
                return await next.request(call, request)
            return await first_accepted(call, request, bound, self._tried)

        async def close(call: Call, conn: Connection) -> None:
            # a request that failed may have left no mechanism in the connection, and what is unknown has things below
            kind = self._tried.pop(call) or conn.mechanism.type
            await bound.get(kind, next).close(call, conn)

        verbs: list[Callable[[Any, Any], Any]] = [request, close]
        if observe is not None:
            verbs = [observe.wrap(Place(self, verb.__name__), verb) for verb in verbs]
        own = tuple(closer for branch in self.branches.values() for closer in branch.bind(END).closers)
        return Next(verbs[0], verbs[1], own + next.closers)


async def first_accepted(call: Call, request: Request, kinds: Mapping[str, Next], tried: Slot[str]) -> Connection:
    """Sends the request on through one of `kinds`: that of the connection's mechanism, else the first of the caller's
    preferences that succeeds. `tried` keeps the type that was taken last.

    InvalidRequest for a mechanism, FailedPrecondition for preferences that `kinds` lacks; else the error of the only
    try, or one of the last one's status that has the causes of all, and the longest pause that one of them asks for.
    """
    kind = request.connection.mechanism.type
    if kind:
        branch = kinds.get(kind)
        if branch is None:
            raise InvalidRequest(f"unsupported mechanism: {kind[:64]!r}", hint=_hint(kinds))
        tried.set(call, kind)
        return _noted(await branch.request(call, request))
    wanted = [one for one in request.mechanism_preferences if one.type in kinds]
    failures: list[tuple[str, NsmError]] = []
    for position, preference in enumerate(wanted):
        last = position == len(wanted) - 1
        attempt = request
        if not last:
            attempt = Request()
            attempt.CopyFrom(request)
        attempt.connection.mechanism.CopyFrom(preference)
        tried.set(call, preference.type)
        try:
            return _noted(await kinds[preference.type].request(call, attempt))
        except (Cancelled, DeadlineExceeded):
            raise
        except NsmError as error:
            failures.append((preference.type, error))
            if not last:
                await _undo(call, attempt.connection, kinds[preference.type])
    raise _nothing(request, failures, kinds)


async def _undo(call: Call, conn: Connection, branch: Next) -> None:
    with cleanup_time(_UNDO):
        try:
            await branch.close(call, conn)
        except NsmError as error:
            logger.warning("closing after a mechanism that could not be built: %s", error)


def _nothing(request: Request, failures: list[tuple[str, NsmError]], kinds: Mapping[str, Next]) -> NsmError:
    if len(failures) == 1:
        # the caller is to read the very error, with the hop where it arose
        return failures[0][1]
    text = "cannot support any of the requested mechanism"
    if not failures:
        asked = ", ".join(one.type[:64] for one in request.mechanism_preferences) or "none"
        return FailedPrecondition(f"{text} (asked for: {asked})", hint=_hint(kinds))
    last = failures[-1][1]
    causes = "; ".join(f"{kind}: {error.message}" for kind, error in failures)
    wait = max(pushback(error) for _, error in failures) or None
    return from_status(last.status, f"{text}: {causes}", hint=last.hint, trail=last.trail, retry_after=wait)


def _hint(kinds: Mapping[str, Next]) -> str:
    return f"this hop supports {', '.join(kinds) or 'none'}; ask for one of these"


def _noted(conn: Connection) -> Connection:
    note_interface(conn, "server_interface", conn.mechanism)
    return conn


def note_interface(conn: Connection, key: str, mechanism: Mechanism) -> None:
    """Writes `TYPE/name` into the metrics of the current path segment, once."""
    path = conn.path
    if path.index < len(path.path_segments) and mechanism.type:
        metrics = path.path_segments[path.index].metrics
        if key not in metrics:
            name = mechanism.parameters.get("name", "") if mechanism.parameters else "unknown"
            metrics[key] = f"{mechanism.type}/{name}"


class MechanismPriority(Element):
    """Put preferences of these types first, in this order; the others keep theirs. Types in any case of letters."""

    def __init__(self, *types: str) -> None:
        self.types = types
        self._rank = {kind.upper(): rank for rank, kind in reversed(list(enumerate(types)))}

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        before = list(request.mechanism_preferences)
        after = sorted(before, key=lambda one: self._rank.get(one.type, len(self.types)))
        if after != before:
            del request.mechanism_preferences[:]
            request.mechanism_preferences.extend(after)
        return await next.request(call, request)
