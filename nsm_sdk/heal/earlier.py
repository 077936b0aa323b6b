# SPDX-License-Identifier: Apache-2.0
"""What an earlier run of a client has left.

Does:  asks a manager's monitor for connections, makes the client's own view of them, checks their datapath once.
Place: below `Resume`; for applications that take connections up by themselves.
State: none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TypeAlias

import anyio

from nsm_sdk.api import Connection, EventType, PathSegment, Selector
from nsm_sdk.core import Bound, Call
from nsm_sdk.heal.probes.probe import Probe, Target

PATIENCE = 15.0
"""Seconds for the manager's answer."""

Alive: TypeAlias = Callable[[Connection], Awaitable[bool | None]]
"""Whether the datapath of a connection works; None where that cannot be said."""


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


def checked_by(probe: Probe, call: Call, *, namespace: str | int = "", timeout: float = 1.0) -> Alive:
    """An `Alive` that runs `probe` once, within `timeout` seconds. The probe must be started."""

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
