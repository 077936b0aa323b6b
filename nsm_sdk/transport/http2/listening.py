# SPDX-License-Identifier: Apache-2.0
"""A gRPC server of our own, on one address.

Does:  binds, accepts, answers health checks, and stops gracefully; a role that is killed breaks its connections.
Place: behind `listen`.
State: the sockets and the connections, while it runs.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager

import anyio

from nsm_sdk.api import Target
from nsm_sdk.core import Runtime, Served
from nsm_sdk.transport import sockets
from nsm_sdk.transport.http2.health import Health
from nsm_sdk.transport.http2.server import Connections, ServerConnection
from nsm_sdk.transport.offers import Extra, offers

logger = logging.getLogger("nsm_sdk.transport")

GRACE = 0.25
"""Seconds for answers that are on their way when the server stops; calls have been drained before."""
AT_ONCE = 64
"""Connections that are accepted before others have their turn."""
PAUSE = 0.25
"""Seconds until the next try where the machine refused a connection, mostly for want of descriptors."""


@asynccontextmanager
async def listening(
    served: Served, target: Target, *, extra: Extra | None, mode: int, max_message: int
) -> AsyncGenerator[str, None]:
    """Serve at `target`; yields the URL with the port taken."""
    found = offers(served.bound, extra)
    health = Health({offer.method.service for offer in found.values()}, served.runtime)
    connections = Connections()

    def accepted() -> ServerConnection:
        return ServerConnection(served, found, health, connections, max_message)

    with ExitStack() as place:
        if target.network == "tcp":
            bound, url = await sockets.bind_tcp(target, place)
        else:
            bound, url = [sockets.bind_unix(target, mode, place)], target.url
        accepting = [_Accepting(sock, url, accepted, served.runtime) for sock in bound]
        grace = 0.0
        try:
            yield url
            grace = GRACE
        finally:
            for each in accepting:
                each.stop()
            health.stop()
            with anyio.CancelScope(shield=True):
                await connections.stop(grace)


class _Accepting:
    """Accepts at one socket. asyncio's own server prints tracebacks when descriptors run out."""

    def __init__(
        self, sock: socket.socket, url: str, accepted: Callable[[], ServerConnection], runtime: Runtime
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._url = url
        self._accepted = accepted
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._refused = False
        self._loop.add_reader(sock, self._accept)

    def stop(self) -> None:
        """Accept no more."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._sock)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._refused = False
            sock.setblocking(False)
            self._runtime.spawn(functools.partial(self._serve, sock), "accept")

    def _pause(self, error: OSError) -> None:
        if not self._refused:
            self._refused = True
            logger.warning("%s: %s: new connections wait (%s)", self._runtime.name, self._url, error.strerror or error)
        self._loop.remove_reader(self._sock)
        self._later = self._loop.call_later(PAUSE, self._loop.add_reader, self._sock, self._accept)

    async def _serve(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._accepted, sock)
        except BaseException:
            sock.close()
            raise
