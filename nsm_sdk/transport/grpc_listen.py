# SPDX-License-Identifier: Apache-2.0
"""A gRPC server of our own, on one address.

Does:  binds, serves, answers health checks, and stops gracefully; a role that is killed breaks its connections.
Place: behind `listen`.
State: the server, while it runs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext

import anyio
import grpc.aio

from nsm_sdk.api import Target
from nsm_sdk.core import Served
from nsm_sdk.errors import AlreadyExists
from nsm_sdk.transport import sockets
from nsm_sdk.transport.grpc_server import handlers
from nsm_sdk.transport.health import Health
from nsm_sdk.transport.offers import Extra, offers
from nsm_sdk.transport.settings import server_options

GRACE = 0.25
"""Seconds for answers that are on their way when the server stops; calls have been drained before."""


@asynccontextmanager
async def listening(
    served: Served, target: Target, *, extra: Extra | None, mode: int, max_message: int
) -> AsyncGenerator[str, None]:
    """Serve at `target`; yields the URL with the port taken."""
    tcp = target.network == "tcp"
    # Before there is a server, because one that never starts keeps descriptors for ever.
    if tcp:
        await sockets.check_tcp(target)
    else:
        sockets.check_unix(target.address, target.url)
    server = grpc.aio.server(options=server_options(max_message))
    server.add_generic_rpc_handlers((handlers(served, extra),))
    services = {offer.method.service for offer in offers(served.bound, extra).values()}
    health = Health(server, services, served.runtime)
    with ExitStack() as place:
        grace: float | None = None
        try:
            url = target.url
            try:
                if tcp:
                    url = _bind_tcp(server, target)
                else:
                    place.enter_context(_unix(server, target, mode))
            finally:
                await server.start()
            await health.ready()
            yield url
            grace = GRACE
        finally:
            with anyio.CancelScope(shield=True):
                await health.stop()
                await server.stop(grace)


def _unix(server: grpc.aio.Server, target: Target, mode: int) -> AbstractContextManager[None]:
    if target.address.startswith("@"):
        server.add_insecure_port(target.grpc)
        return nullcontext()
    return sockets.unix_place(target.address, target.url, mode, lambda path: server.add_insecure_port(f"unix:{path}"))


def _bind_tcp(server: grpc.aio.Server, target: Target) -> str:
    try:
        port = server.add_insecure_port(target.address if target.host else f"[::]:{target.port}")
    except RuntimeError as error:
        raise AlreadyExists(
            f"{target.url}: address in use", hint="stop the program that listens there, or take another"
        ) from error
    return Target("tcp", f"{target.address.rpartition(':')[0]}:{port}").url
