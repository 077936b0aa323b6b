# SPDX-License-Identifier: Apache-2.0
"""An endpoint that is a client of the same service.

Does:  sends a connection on to another endpoint of its service: with labels of our own, so that a service's matches
       lead on along a chain of functions, and without our name as the endpoint that is asked for. The caller sees its
       own labels, and us.
Place: in endpoints that hand their traffic on, above discovery and `Connect`.
State: the endpoint behind us, one per connection.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next, Slot


class Passthrough(Element):
    """Go on as a client with `labels`."""

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        self.labels = dict(labels or {})
        self._behind = Slot[str]("endpoint behind")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        labels, name = dict(request.connection.labels), request.connection.network_service_endpoint_name
        self._turn(request.connection, self._behind.get(call) or "")
        conn = await next.request(call, request)
        self._behind.set(call, conn.network_service_endpoint_name)
        conn.network_service_endpoint_name = name
        _replace(conn, labels)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._turn(conn, self._behind.get(call) or "")
        await next.close(call, conn)
        self._behind.pop(call)

    def _turn(self, conn: Connection, behind: str) -> None:
        conn.network_service_endpoint_name = behind
        _replace(conn, self.labels)


def _replace(conn: Connection, labels: Mapping[str, str]) -> None:
    conn.labels.clear()
    conn.labels.update(labels)
