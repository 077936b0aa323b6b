# SPDX-License-Identifier: Apache-2.0
"""Connections that outlive their client.

Does:  asks the manager's monitor for connections whose path begins with the client's own id, and prepares a request
       that takes one over: the same endpoint, mechanism and addresses, unless the datapath turns out to be dead.
Place: before the first Request of a client that restarts (`Client`, `nsm run nsc`).
State: none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

import anyio

from nsm_sdk.api import Connection, EventType, PathSegment, Request, Selector, State
from nsm_sdk.core import Bound, Call
from nsm_sdk.errors import NsmError
from nsm_sdk.heal.moving import select_anew
from nsm_sdk.heal.probes.base import Probe, Target

PATIENCE = 15.0
"""Seconds for the manager's answer."""

Alive: TypeAlias = Callable[[Connection], Awaitable[bool | None]]
"""Whether the datapath of a connection works; None where that cannot be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """One connection that was found."""

    connection: Connection
    """What to request: the client's own view, index 0."""
    down: bool
    """The manager says DOWN."""
    alive: bool | None
    """What the check said; None where there was none."""
    anew: bool
    """It cannot be kept: the request selects anew."""


async def find_connections(
    near: Bound, call: Call, ids: Iterable[str], *, patience: float = PATIENCE
) -> list[Connection]:
    """The manager's view of connections whose path begins with one of `ids`; empty where it has no monitor.

    Errors are those of the monitor stream; TimeoutError when it says nothing for `patience` seconds.
    """
    if near.monitor is None:
        return []
    found: list[Connection] = []
    for own in ids:
        selector = Selector(path_segments=[PathSegment(id=own)])
        with anyio.fail_after(min(patience, call.remaining())):
            async with aclosing(near.monitor.watch(call, selector)) as stream:
                async for event in stream:
                    if event.type == EventType.INITIAL_STATE_TRANSFER:
                        found += [conn for conn in event.connections.values() if begins_with(conn, own)]
                        break
    return found


def begins_with(conn: Connection, id: str) -> bool:
    """Whether `conn`, as the first manager sees it, was opened by a client under that id."""
    segments = conn.path.path_segments
    return conn.path.index == 1 and len(segments) > 1 and segments[0].id == id


def take_over(conn: Connection, id: str, preferences: Sequence[str] = ()) -> Connection | None:
    """The client's own view of what its manager knows; None where its mechanism is none of the `preferences`."""
    if not begins_with(conn, id) or (preferences and conn.mechanism.type not in preferences):
        return None
    taken = Connection()
    taken.CopyFrom(conn)
    taken.path.index = 0
    taken.id = id
    return taken


async def resume(
    near: Bound,
    call: Call,
    ids: Iterable[str],
    *,
    mechanisms: Sequence[str] = (),
    alive: Alive | None = None,
    patience: float = PATIENCE,
) -> dict[str, Resumed]:
    """What can be resumed, by id. `alive` checks each datapath first; a manager that cannot be asked knows nothing.

    A connection that is DOWN and not known to be alive, or whose check fails, is to be selected anew.
    """
    wanted = list(ids)
    try:
        known = await find_connections(near, call, wanted, patience=patience)
    except (NsmError, TimeoutError):
        return {}
    answer: dict[str, Resumed] = {}
    for conn in known:
        own = conn.path.path_segments[0].id
        taken = take_over(conn, own, mechanisms)
        if taken is None:
            continue
        down = taken.state == State.DOWN
        taken.state = State.UP
        verdict = None if alive is None else await alive(taken)
        anew = verdict is False or (down and verdict is None)
        if anew:
            request = Request(connection=taken)
            select_anew(request)
            taken = request.connection
        answer[own] = Resumed(connection=taken, down=down, alive=verdict, anew=anew)
    return answer


def checked_by(probe: Probe, call: Call, *, namespace: str | int = "", timeout: float = 1.0) -> Alive:
    """An `alive` for `resume` that runs `probe` once, within `timeout` seconds. The probe must be started."""

    async def alive(conn: Connection) -> bool | None:
        target = Target.of(conn, namespace)
        chosen = probe.choose(target)
        if chosen is None:
            return None
        done = anyio.Event()
        verdicts: list[bool | None] = []

        def tell(verdict: object) -> None:
            verdicts.append(getattr(verdict, "alive", None))
            done.set()

        cancel = chosen.begin(call.runtime, target, timeout, tell)
        try:
            await done.wait()
        finally:
            cancel()
        return verdicts[0]

    return alive
