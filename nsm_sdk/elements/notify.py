# SPDX-License-Identifier: Apache-2.0
"""Telling the application what its connections have become.

Does:  hands a snapshot of each answered connection, and of each close, to a function; also of those that refreshing and
       healing bring about behind the application's back.
Place: right below `Begin`, in clients.
"""

from __future__ import annotations

from collections.abc import Callable

from nsm_sdk.api import Connection, Request, Snapshot
from nsm_sdk.core import Call, Cause, Element, Next

Told = Callable[[Cause, Snapshot, bool], None]
"""(why, the connection, whether it is open); must not block."""


class Tell(Element):
    """Call `told` after every request that succeeds and every close."""

    def __init__(self, told: Told) -> None:
        self.told = told

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        self.told(call.cause, Snapshot.of(conn), True)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        snapshot = Snapshot.of(conn)
        try:
            await next.close(call, conn)
        finally:
            if call.cause is not Cause.RESELECT:
                self.told(call.cause, snapshot, False)
