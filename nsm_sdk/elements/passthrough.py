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
from typing import NamedTuple

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import FailedPrecondition


class Behind(NamedTuple):
    """The endpoint that a connection goes on to."""

    name: str
    payload: str


class Passthrough(Element):
    """Go on as a client of the same service, or of `service`, with `labels`.

    `by_service` has the labels to go on with instead, by the service that the caller asks for.

    FailedPrecondition for a connection that has come through this endpoint before: it would go round in a circle.
    """

    def __init__(
        self,
        labels: Mapping[str, str] | None = None,
        *,
        service: str = "",
        by_service: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.labels = dict(labels or {})
        self.by_service = {name: dict(own) for name, own in (by_service or {}).items()}
        self.service = service
        self._behind = Slot[Behind]("endpoint behind")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        asked = request.connection
        _check_circle(asked)
        labels, name, payload = dict(asked.labels), asked.network_service_endpoint_name, asked.payload
        service = asked.network_service
        self._turn(call, asked)
        conn = await next.request(call, request)
        self._behind.set(call, Behind(conn.network_service_endpoint_name, conn.payload))
        conn.network_service_endpoint_name = name
        if self.service:
            conn.network_service, conn.payload = service, payload
        _replace(conn, labels)
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._turn(call, conn)
        await next.close(call, conn)
        self._behind.pop(call)

    def _turn(self, call: Call, conn: Connection) -> None:
        behind = self._behind.get(call) or Behind("", "")
        conn.network_service_endpoint_name = behind.name
        own = self.by_service.get(conn.network_service, self.labels)
        if self.service:
            conn.network_service, conn.payload = self.service, behind.payload
        _replace(conn, own)


def _check_circle(conn: Connection) -> None:
    path = conn.path
    before = path.path_segments[: path.index]
    if not before or path.index >= len(path.path_segments):
        return
    own = path.path_segments[path.index].name
    if any(segment.name == own for segment in before):
        raise FailedPrecondition(
            f"the connection has come through endpoint {own!r} before",
            hint=f"give the service match rules that lead from the labels of {own!r} to another endpoint",
        )


def _replace(conn: Connection, labels: Mapping[str, str]) -> None:
    conn.labels.clear()
    conn.labels.update(labels)
