# SPDX-License-Identifier: Apache-2.0
"""What opens a connection's state in a rig.

Does:  `OpenState` keeps a state for each connection id, drops it at close, and undoes a first request that failed. It
       does none of the rest of `Begin`: no lock, no events, no retries of a close.
Place: top of a rig's chain.
State: the states, by connection id.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Cause, Element, Next, State, cleanup_time


class OpenState(Element):
    """Gives each connection its state, and nothing more."""

    gives_state = True
    unique = True

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        key = request.connection.id
        first = key not in self._states
        call.state = self._states.setdefault(key, State())
        conn = Connection()
        conn.CopyFrom(request.connection)
        try:
            return await next.request(call, request)
        except BaseException:
            if first:
                del self._states[key]
                call.cause = Cause.ROLLBACK
                with cleanup_time(2.0):
                    await next.close(call, conn)
            raise

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        call.state = self._states.pop(conn.id, State())
        await next.close(call, conn)


def make_begin() -> Element:
    """The element to put on top."""
    return OpenState()
