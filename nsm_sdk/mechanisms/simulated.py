# SPDX-License-Identifier: Apache-2.0
"""A datapath without packets: it accepts every joint and makes nothing.

Does:  remembers which connections are joined, and refuses an interface name that a real one would refuse. Needs no
       privileges; mechanisms and addresses are handled as they come.
Place: behind Join, where NSM_DATAPATH=simulated or a mesh lives in one process.
State: the connections joined now.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterable, Sequence

from nsm_sdk.api import KERNEL, LOCAL, Connection, Mechanism, check_interface_name
from nsm_sdk.api.mechanism import namespace_identity
from nsm_sdk.core import Runtime, Service
from nsm_sdk.mechanisms.clients import Client, Held, former, has_processes, refreshed_until
from nsm_sdk.mechanisms.ports import Joint


class SimulatedDatapath(Service):
    """The Datapath that only keeps books."""

    needs_mechanism = False
    """What makes no interface needs none to be named."""

    def __init__(self) -> None:
        self._joined: dict[str, tuple[Client | None, Held]] = {}
        self._clients: dict[Client, set[str]] = {}
        self._wall = time.time

    async def start(self, runtime: Runtime) -> None:
        """What is noted stays, as interfaces would."""
        self._wall = runtime.clock.wall

    def accepted(self, conn: Connection) -> Collection[str]:
        """What a kernel would have."""
        return (KERNEL,)

    def offered(self, conn: Connection) -> Sequence[Mechanism]:
        """What a kernel would have."""
        return (Mechanism(cls=LOCAL, type=KERNEL),)

    def claim(self, connection: str) -> Mechanism | None:
        """None: nothing is left of an earlier run."""
        return None

    async def admit(self, conn: Connection) -> list[str]:
        """Ids of connections that the same client has left and this one replaces; AlreadyExists as with a kernel."""
        return self._former(conn, conn.mechanism)

    def _former(self, conn: Connection, near: Mechanism) -> list[str]:
        client = Client.of(conn)
        held = [self._joined[one][1] for one in self._clients.get(client, ())] if client is not None else []
        url = near.parameters.get("inodeURL", "")
        if client is None or all(one.connection == conn.id and one.url == url for one in held):
            return []
        place = self._place(url)
        return former(client, conn.id, place, held, occupied=self.occupied, now=self._wall)

    def _place(self, url: str) -> Hashable:
        return namespace_identity(url) or url

    def occupied(self, held: Held) -> bool:
        """Whether a process is in the namespace of a connection."""
        return isinstance(held.place, tuple) and has_processes(*held.place)

    async def join(self, joint: Joint) -> list[str]:
        """Notes the connection; InvalidRequest for an interface name that cannot be."""
        for mechanism in (joint.near, joint.far):
            name = mechanism.parameters.get("name", "")
            if name:
                check_interface_name(name)
        conn, url = joint.connection, joint.near.parameters.get("inodeURL", "")
        gone = self._former(conn, joint.near)
        client = Client.of(conn)
        self._forget(joint.id)
        self._joined[joint.id] = client, Held(joint.id, self._place(url), url, refreshed_until(conn))
        if client is not None:
            self._clients.setdefault(client, set()).add(joint.id)
        return gone

    def _forget(self, connection: str) -> None:
        client, _ = self._joined.pop(connection, (None, None))
        if client is not None:
            self._clients[client].discard(connection)
            if not self._clients[client]:
                del self._clients[client]

    async def part(self, conn: Connection) -> None:
        """Forgets the connection."""
        self._forget(conn.id)

    async def sweep(self) -> list[str]:
        """Nothing outlives this process."""
        return []

    def ids(self) -> Iterable[str]:
        """The connections that are noted."""
        return list(self._joined)
