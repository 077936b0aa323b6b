# SPDX-License-Identifier: Apache-2.0
"""The forwarder's heart: joins the two legs of a connection once the far side has answered.

Does:  after the next hop has answered, makes the near and the far mechanism one datapath; a refresh verifies and
       repairs; a close removes. What the far side said is found in FAR_MECHANISM. What an earlier run has joined is
       taken up before the next hop is asked.
Place: behind `Mechanisms(KERNEL=...)` or with nothing in between above TranslateMechanism.
State: the datapath's; this element has none.
"""

from __future__ import annotations

from nsm_sdk.api import KERNEL, Connection, Mechanism, Request, State
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.errors import FailedPrecondition
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

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if far_mechanism(call) is None:
            self._take_up(call, request.connection)
        conn = await next.request(call, request)
        far = far_mechanism(call)
        if self.as_they_come and (far is None or not far.type):
            await self.datapath.join(Joint(connection=conn, near=conn.mechanism, far=far or Mechanism()))
            return conn
        if far is None or far.type != KERNEL or conn.mechanism.type != KERNEL:
            kinds = [one.type[:64] if one is not None and one.type else "no mechanism" for one in (conn.mechanism, far)]
            raise FailedPrecondition(
                f"a client with {kinds[0]} and an endpoint with {kinds[1]} cannot be joined here",
                hint=f"this forwarder joins {KERNEL} with {KERNEL}",
            )
        await self.datapath.join(Joint(connection=conn, near=conn.mechanism, far=far))
        return conn

    def _take_up(self, call: Call, conn: Connection) -> None:
        """What an earlier run of this forwarder has joined stays joined, also if the far side does not answer now; and
        if it was restarted as well, it is to get the interface that it had."""
        known = self.datapath.claim(conn.id)
        if known is not None and conn.state != State.RESELECT_REQUESTED:
            FAR_MECHANISM.set(call, known.SerializeToString())
            call.events.adopt()

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        try:
            await self.datapath.part(conn)
        finally:
            await next.close(call, conn)
