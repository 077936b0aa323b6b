# SPDX-License-Identifier: Apache-2.0
"""Messages to test with.

Does:  makes small valid requests, connections and registry entries.
Place: default input of `drive` and `rig`; tests that do not care what exactly is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsm_sdk.api import (
    Connection,
    Mechanism,
    NetworkService,
    NetworkServiceEndpoint,
    Path,
    PathSegment,
    Request,
    set_expiry,
)
from nsm_sdk.api.mechanism import KERNEL, LOCAL


def sample_connection(
    id: str = "connection-1",
    *,
    client: str = "nsc-1",
    service: str = "service-1",
    labels: Mapping[str, str] | None = None,
) -> Connection:
    """A connection as a client sends it: one path segment, which is the client's own."""
    return Connection(
        id=id,
        network_service=service,
        payload="IP",
        labels=dict(labels or {}),
        path=Path(index=0, path_segments=[PathSegment(name=client, id=id)]),
    )


def sample_request(
    id: str = "connection-1",
    *,
    client: str = "nsc-1",
    service: str = "service-1",
    labels: Mapping[str, str] | None = None,
    mechanism: str = KERNEL,
) -> Request:
    """A request for `sample_connection`, with one local mechanism preference."""
    return Request(
        connection=sample_connection(id, client=client, service=service, labels=labels),
        mechanism_preferences=[Mechanism(cls=LOCAL, type=mechanism)],
    )


def at_hop(request: Request, name: str = "hop-1", *, expires: float) -> Request:
    """`request` as it stands at the next hop, changed in place: a second segment is the current one, and the caller's
    token lives until `expires` (seconds since the epoch). The connection's id becomes `<id>-<name>`."""
    conn = request.connection
    set_expiry(conn.path.path_segments[0], expires)
    conn.id = f"{conn.id}-{name}"
    conn.path.path_segments.add(name=name, id=conn.id)
    conn.path.index = 1
    return request


def sample_endpoint(
    name: str = "nse-1", *, service: str = "service-1", url: str = "inproc://nse-1"
) -> NetworkServiceEndpoint:
    """An endpoint entry that offers one service."""
    return NetworkServiceEndpoint(name=name, network_service_names=[service], url=url)


def sample_service(name: str = "service-1") -> NetworkService:
    """A network service entry without matches."""
    return NetworkService(name=name, payload="IP")
