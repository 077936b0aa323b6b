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

from nsm_sdk.api import KERNEL, Connection, Request, State
from nsm_sdk.api.mechanism import namespace_identity
from nsm_sdk.core import Call, Dial, Element, Next
from nsm_sdk.elements.connect import FILE, PassedFile, asked_files
from nsm_sdk.elements.merge import wishes
from nsm_sdk.errors import Cancelled, DeadlineExceeded, NsmError, Unavailable
from nsm_sdk.heal.earlier import checked_by, find_connections, take_over
from nsm_sdk.heal.element import Heal
from nsm_sdk.heal.moving import Given, add_wishes, select_anew
from nsm_sdk.heal.probes.probe import url_of

logger = logging.getLogger("nsm_sdk.heal")

ASK_TIME = 5.0
"""Seconds that the manager gets to tell of connections of an earlier run; at most half of what the Request has."""


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
            if conn is None or conn.path.path_segments[0].name != self.name or not _fits(conn, request):
                continue
            if self._elsewhere(conn):
                logger.info("%s: connection %s is in another namespace and not taken up", self.name, own)
                continue
            return conn
        return None

    def _elsewhere(self, conn: Connection) -> bool:
        """Whether the interface is in a namespace that is there and not ours: a living client of our name may be using
        it. The forwarder says whether we may have it."""
        where = url_of(self.namespace)
        if conn.mechanism.type != KERNEL or not isinstance(where, str):
            return False
        theirs, own = namespace_identity(conn.mechanism.parameters.get("inodeURL", "")), namespace_identity(where)
        return theirs is not None and own is not None and theirs != own

    async def _take_up(self, call: Call, request: Request, conn: Connection) -> None:
        """Make the request one for `conn`; anew where its datapath turns out to be dead."""
        where = url_of(self.namespace)
        if conn.mechanism.type == KERNEL and isinstance(where, str):
            # The earlier run may have named our own namespace by its process, which has gone.
            conn.mechanism.parameters[FILE] = where
        elif conn.mechanism.parameters.get(FILE, "").startswith("inode://"):
            # The manager names the file by a descriptor that we do not have.
            asked = asked_files(request).get(conn.mechanism.type, [])
            PassedFile(conn.mechanism.parameters[FILE], asked[0] if asked else "").take_out(conn)
        down = conn.state == State.DOWN
        conn.state = State.UP
        alive: bool | None = None
        if (probe := self._heal.probe) is not None:
            timeout = self._heal.liveness.timeout
            alive = await checked_by(probe, call, namespace=self.namespace, timeout=timeout)(conn)
        wanted = wishes(request.connection)
        add_wishes(conn, wanted)
        request.connection.CopyFrom(conn)
        self._heal.takes_up(conn.id, wanted)
        if alive is False or (down and alive is None):
            logger.info("%s: connection %s of an earlier run is dead: selecting anew", self.name, conn.id)
            given = Given()
            given.asked(request, found=wanted)
            given.strip(request, addresses=not self._heal.offer_addresses)
            select_anew(request)
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
