# SPDX-License-Identifier: Apache-2.0
"""Connections that outlive their client.

Does:  before the first Request of a connection, asks the manager's monitor whether an earlier run of the client has
       left it. If so, the check runs, and the Request takes it over: the same endpoint, mechanism and addresses, unless
       the datapath turns out to be dead; then it selects anew.
Place: above `UpdatePath`, in clients whose connections have ids that stay the same over restarts.
State: which connections the manager has been asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TypeAlias

import anyio

from nsm_sdk.api import KERNEL, Connection, ConnectionContext, EventType, PathSegment, Request, Selector, State
from nsm_sdk.core import Bound, Call, Dial, Element, Next
from nsm_sdk.errors import Cancelled, DeadlineExceeded, NsmError, Unavailable
from nsm_sdk.heal.element import Heal
from nsm_sdk.heal.moving import Given, add_wishes, select_anew
from nsm_sdk.heal.probes.base import Probe, Target, url_of

logger = logging.getLogger("nsm_sdk.heal")

ASK_TIME = 5.0
"""Seconds that the manager gets to tell of connections of an earlier run; at most half of what the Request has."""
PATIENCE = 15.0
"""Seconds for the manager's answer."""

Alive: TypeAlias = Callable[[Connection], Awaitable[bool | None]]
"""Whether the datapath of a connection works; None where that cannot be said."""


class Resume(Element):
    """Take up what an earlier run of the client `name` has left at its `manager`.

    `heal` has the probe for the check that runs first; `namespace` is where the interfaces of connections are, default
    that of `heal`. A connection is taken up if it has the id, and is what the request asks for: service, mechanism,
    and interface, endpoint and payload where it names them. A manager that is not there fails the Request, which
    is then to be tried again; one that does not tell has nothing.
    """

    unique = True

    def __init__(self, name: str, *, manager: str, dial: Dial, heal: Heal | None = None, namespace: str = "") -> None:
        self.name = name
        self.manager = manager
        self.dial = dial
        self._heal = heal or Heal()
        self.namespace: str | int = namespace or self._heal.namespace
        self._asked: set[str] = set()

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        if not conn.id or conn.path.path_segments or conn.id in self._asked:
            return await next.request(call, request)
        own = conn.id
        left = await self._left(call, request)
        self._asked.add(own)
        if left is None:
            return await next.request(call, request)
        try:
            await self._take_up(call, request, left)
            return await next.request(call, request)
        except BaseException:
            # It may be there still, and the next try shall find it as it is then.
            self._asked.discard(own)
            raise
        finally:
            self._heal.takes_up(own, None)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._asked.discard(conn.id)
        await next.close(call, conn)

    async def _left(self, call: Call, request: Request) -> Connection | None:
        """What the manager knows of the connection, as the client saw it."""
        own, clock = request.connection.id, call.runtime.clock
        asking = Call(call.runtime, deadline=clock.now() + min(ASK_TIME, call.remaining() / 2))
        try:
            known = await find_connections(self.dial(self.manager), asking, [own], patience=asking.remaining())
        except (Unavailable, DeadlineExceeded, Cancelled):
            # Nobody is there to request anything of, either; who comes back may know it.
            raise
        except (NsmError, TimeoutError) as error:
            logger.info("%s: the manager does not tell of connections of an earlier run: %s", self.name, error)
            return None
        wanted = request.mechanism_preferences
        for one in known:
            conn = take_over(one, own, [preference.type for preference in wanted])
            if conn is not None and conn.path.path_segments[0].name == self.name and _fits(conn, request):
                return conn
        return None

    async def _take_up(self, call: Call, request: Request, conn: Connection) -> None:
        """Make the request one for `conn`; anew where its datapath turns out to be dead."""
        where = url_of(self.namespace)
        if conn.mechanism.type == KERNEL and isinstance(where, str):
            # The earlier run may have named our own namespace by its process, which has gone.
            conn.mechanism.parameters["inodeURL"] = where
        down = conn.state == State.DOWN
        conn.state = State.UP
        alive: bool | None = None
        if (probe := self._heal.probe) is not None:
            timeout = self._heal.liveness.timeout
            alive = await checked_by(probe, call, namespace=self.namespace, timeout=timeout)(conn)
        wishes = ConnectionContext()
        wishes.CopyFrom(request.connection.context)
        add_wishes(conn.context, wishes)
        conn.labels.update(request.connection.labels)
        request.connection.CopyFrom(conn)
        self._heal.takes_up(conn.id, wishes)
        if alive is False or (down and alive is None):
            logger.info("%s: connection %s of an earlier run is dead: selecting anew", self.name, conn.id)
            select_anew(request)
            given = Given()
            given.asked(request, wishes)
            given.strip(request, addresses=not self._heal.offer_addresses)
        else:
            logger.info("%s: taking up connection %s of an earlier run", self.name, conn.id)


def _fits(conn: Connection, request: Request) -> bool:
    """Whether a connection that was found is what the request asks for."""
    asked = request.connection
    names = {name for preference in request.mechanism_preferences if (name := preference.parameters.get("name"))}
    return (
        # Hops may have taken off, or put on, the domain.
        conn.network_service.partition("@")[0] == asked.network_service.partition("@")[0]
        and asked.network_service_endpoint_name in ("", conn.network_service_endpoint_name)
        and asked.payload in ("", conn.payload)
        and (not names or conn.mechanism.parameters.get("name") in names)
    )


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
