# SPDX-License-Identifier: Apache-2.0
"""The forwarder's heart: joins the two legs of a connection once the far side has answered.

Does:  after the next hop has answered, makes the near and the far mechanism one datapath; a refresh verifies and
       repairs; a close removes. What the far side said is found in FAR_MECHANISM. What an earlier run has joined is
       taken up before the next hop is asked.
Place: behind `Mechanisms(KERNEL=...)` or with nothing in between above TranslateMechanism.
State: the datapath's; and the events of each connection, to end one that its client has left.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from nsm_sdk.api import KERNEL, Connection, Mechanism, Request, State
from nsm_sdk.core import Call, Done, Element, Events, Next, Outcome
from nsm_sdk.errors import AlreadyExists, Exhausted, FailedPrecondition
from nsm_sdk.mechanisms.ports import Datapath, Joint
from nsm_sdk.mechanisms.slots import FAR_MECHANISM, far_mechanism


class KernelForward(Element):
    """Join kernel interfaces with `datapath`.

    `as_they_come`: an endpoint that names no mechanism is joined all the same; for a datapath that makes no interface.
    """

    unique = True

    def __init__(self, datapath: Datapath, *, as_they_come: bool = False) -> None:
        self.datapath = datapath
        self.as_they_come = as_they_come
        self._events: dict[str, Events] = {}

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        try:
            left = await self.datapath.admit(request.connection)
        except AlreadyExists:
            # What stands under this id is the other client's.
            call.events.adopt()
            raise
        if far_mechanism(call) is None:
            self._take_up(call, request.connection)
        self._events[request.connection.id] = call.events
        conn = await self._far_side(call, request, next, left)
        far = far_mechanism(call)
        if self.as_they_come and (far is None or not far.type):
            await self._join(Joint(connection=conn, near=conn.mechanism, far=far or Mechanism()))
            return conn
        if far is None or far.type != KERNEL or conn.mechanism.type != KERNEL:
            kinds = [one.type[:64] if one is not None and one.type else "no mechanism" for one in (conn.mechanism, far)]
            raise FailedPrecondition(
                f"a client with {kinds[0]} and an endpoint with {kinds[1]} cannot be joined here",
                hint=f"this forwarder joins {KERNEL} with {KERNEL}",
            )
        await self._join(Joint(connection=conn, near=conn.mechanism, far=far))
        return conn

    async def _join(self, joint: Joint) -> None:
        """Join, and have what this connection takes the place of closed at the far side: its addresses are free."""
        for connection in await self.datapath.join(joint):
            self._end(connection)

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

    async def _far_side(self, call: Call, request: Request, next: Next, left: Sequence[str]) -> Connection:
        """Ask further on. What the same client has left is closed when this has succeeded; at once, if the far side
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

    def _take_up(self, call: Call, conn: Connection) -> None:
        """What an earlier run of this forwarder has joined stays joined, also if the far side does not answer now; and
        if it was restarted as well, it is to get the interface that it had."""
        known = self.datapath.claim(conn.id)
        if known is not None and conn.state != State.RESELECT_REQUESTED:
            FAR_MECHANISM.set(call, known.SerializeToString())
            call.events.adopt()

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._events.pop(conn.id, None)
        try:
            await self.datapath.part(conn)
        finally:
            await next.close(call, conn)
