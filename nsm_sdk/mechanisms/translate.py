# SPDX-License-Identifier: Apache-2.0
"""Two legs, two mechanisms: what the client has and what the endpoint has are kept apart.

Does:  sends the request on without the near mechanism and preferences, with the far mechanism where it is known from
       before; notes what the next hop answers; gives the answer its near mechanism back. Close likewise.
Place: forwarders, below KernelForward, above Offer and Connect.
State: FAR_MECHANISM.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.mechanisms.forward import KernelForward
from nsm_sdk.mechanisms.slots import FAR_MECHANISM, note_interface


class TranslateMechanism(Element):
    """Keep the near mechanism, go on with the far one."""

    after = (KernelForward,)
    far = FAR_MECHANISM

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        near = _taken(request.connection)
        _give(request.connection, FAR_MECHANISM.get(call))
        del request.mechanism_preferences[:]
        conn = await next.request(call, request)
        far = _taken(conn)
        if far is None:
            # An empty mechanism is not the same: an endpoint would look for one without a type.
            FAR_MECHANISM.pop(call)
        else:
            FAR_MECHANISM.set(call, far)
        note_interface(conn, "client_interface", conn.mechanism)
        _give(conn, near)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        near = _taken(conn)
        _give(conn, FAR_MECHANISM.pop(call))
        try:
            await next.close(call, conn)
        finally:
            _give(conn, near)


def _taken(conn: Connection) -> bytes | None:
    return conn.mechanism.SerializeToString() if conn.HasField("mechanism") else None


def _give(conn: Connection, raw: bytes | None) -> None:
    if raw is None:
        conn.ClearField("mechanism")
    else:
        conn.mechanism.CopyFrom(Mechanism.FromString(raw))
