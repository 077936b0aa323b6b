# SPDX-License-Identifier: Apache-2.0
"""A gRPC server of our own, on one address.

Does:  binds, serves, answers health checks, and stops gracefully; a role that is killed breaks its connections.
Place: behind `listen`.
State: the socket and the connections, while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager

import anyio

from nsm_sdk.api import Target
from nsm_sdk.core import Served
from nsm_sdk.transport import sockets
from nsm_sdk.transport.http2.health import Health
from nsm_sdk.transport.http2.server import Connections, ServerConnection
from nsm_sdk.transport.offers import Extra, offers

GRACE = 0.25
"""Seconds for answers that are on their way when the server stops; calls have been drained before."""


@asynccontextmanager
async def listening(
    served: Served, target: Target, *, extra: Extra | None, mode: int, max_message: int
) -> AsyncGenerator[str, None]:
    """Serve at `target`; yields the URL with the port taken."""
    found = offers(served.bound, extra)
    health = Health({offer.method.service for offer in found.values()}, served.runtime)
    connections = Connections()
    loop = asyncio.get_running_loop()

    def accepted() -> ServerConnection:
        return ServerConnection(served, found, health, connections, max_message)

    with ExitStack() as place:
        if target.network == "tcp":
            bound, url = await sockets.bind_tcp(target, place)
        else:
            bound, url = [sockets.bind_unix(target, mode, place)], target.url
        servers: list[asyncio.Server] = []
        grace = 0.0
        try:
            for sock in bound:
                server = await loop.create_server(accepted, sock=sock, backlog=sockets.BACKLOG)
                servers.append(server)
            yield url
            grace = GRACE
        finally:
            for server in servers:
                server.close()
            health.stop()
            with anyio.CancelScope(shield=True):
                await connections.stop(grace)
