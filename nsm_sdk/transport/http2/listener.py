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
from nsm_sdk.transport.http2.server import Health, ServerConnection
from nsm_sdk.transport.http2.wire import Connections
from nsm_sdk.transport.offers import Extra, offers
from nsm_sdk.transport.settings import GRACE

logger = logging.getLogger("nsm_sdk.transport")

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
    connections = _Accepted()

    def accepted() -> ServerConnection:
        return ServerConnection(served, found, health, connections, max_message)

    with ExitStack() as place:
        if target.network == "tcp":
            bound, url = await sockets.bind_tcp(target, place)
        else:
            bound, url = [sockets.bind_unix(target, mode, place)], target.url
        accepting = [_Accepting(sock, url, accepted, served.runtime, connections) for sock in bound]

        def leave() -> None:
            for each in accepting:
                each.stop()
            connections.announce()

        served.runtime.at_drain(leave, connections.settled)
        grace = 0.0
        try:
            yield url
            grace = GRACE
            # What is still running has had its time.
            served.runtime.cut_off()
        finally:
            for each in accepting:
                each.stop()
            health.stop()
            with anyio.CancelScope(shield=True):
                await connections.stop(grace)


class _Accepted(Connections[ServerConnection]):
    """Those of a listener, and how they end: no caller loses a call that it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.accepting = 0
        """Sockets that are being handed over."""
        self._stopping = False

    def add(self, connection: ServerConnection) -> None:
        super().add(connection)
        if self._stopping:
            connection.announce()

    def announce(self) -> None:
        """Ask all callers for no more calls."""
        self._stopping = True
        for connection in list(self.open):
            connection.announce()

    async def settled(self) -> None:
        """Wait until no caller makes any more, and those that were made have begun."""
        await self.until(lambda: not self.accepting and all(each.settled for each in self.open))

    async def stop(self, grace: float) -> None:
        """End them all; without `grace` they break."""
        self._stopping = True
        self.over = not grace
        for connection in list(self.open) if grace else ():
            connection.cut()
        await self.close(grace)
        self.over = True


class _Accepting:
    """Accepts at one socket. asyncio's own server prints tracebacks when descriptors run out."""

    def __init__(
        self,
        sock: socket.socket,
        url: str,
        accepted: Callable[[], ServerConnection],
        runtime: Runtime,
        among: _Accepted,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._url = url
        self._accepted = accepted
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._refused = False
        self._among = among
        self._loop.add_reader(sock, self._accept)

    def stop(self) -> None:
        """Accept those who have connected already, and then no more: others are refused from now on."""
        if self._sock.fileno() < 0:
            return
        if not self._runtime.killed:
            self._accept(sockets.BACKLOG)
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _accept(self, most: int = AT_ONCE) -> None:
        for _ in range(most):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._refused = False
            sock.setblocking(False)
            self._among.accepting += 1
            self._runtime.spawn(functools.partial(self._serve, sock), "accept")

    def _pause(self, error: OSError) -> None:
        if not self._refused:
            self._refused = True
            logger.warning("%s: %s: new connections wait (%s)", self._runtime.name, self._url, error.strerror or error)
        self._loop.remove_reader(self._sock)
        self._later = self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    async def _serve(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._accepted, sock)
        except BaseException:
            sock.close()
            raise
        finally:
            self._among.accepting -= 1
            self._among.changed()
