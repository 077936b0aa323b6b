# SPDX-License-Identifier: Apache-2.0
"""gRPC on a socket of our own, server side.

Does:  answers the methods of a `Served`. A call is a task of the role; a caller that resets its stream, or goes away,
       cancels it.
Place: one `ServerConnection` per socket that a listener has accepted.
State: the calls that are running.
"""

from __future__ import annotations

import asyncio
from typing import Final

import anyio

from nsm_sdk.core import Peer, Served
from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.answering import ServerStream
from nsm_sdk.transport.http2.connection import Connection
from nsm_sdk.transport.http2.frames import Broken, Code
from nsm_sdk.transport.http2.health import Health
from nsm_sdk.transport.http2.stream import Stream
from nsm_sdk.transport.offers import Offer
from nsm_sdk.transport.settings import MAX_STREAMS

PING_EVERY: Final = 300.0
"""Seconds of silence after which a caller is pinged."""
GIVEN_UP: Final = 1.0
"""Seconds that the event loop gets to close a socket that was broken."""


class Connections:
    """The connections of one listener."""

    def __init__(self) -> None:
        self._open: set[ServerConnection] = set()
        self._stopping = False
        self._empty = anyio.Event()

    def add(self, connection: ServerConnection) -> None:
        """One was accepted."""
        self._open.add(connection)
        if self._stopping:
            connection.abort("the hop was stopped")

    def discard(self, connection: ServerConnection) -> None:
        """One has closed."""
        self._open.discard(connection)
        if not self._open:
            self._empty.set()

    async def stop(self, grace: float) -> None:
        """End them all: answers that are on their way get `grace` seconds."""
        self._stopping = True
        for connection in list(self._open):
            connection.leave() if grace else connection.abort("the hop was stopped")
        for seconds in (grace, GIVEN_UP):
            if self._open:
                self._empty = anyio.Event()
                with anyio.move_on_after(seconds):
                    await self._empty.wait()
            for connection in list(self._open):
                connection.abort("the hop was stopped")


class ServerConnection(Connection["ServerStream"]):
    """One caller's connection."""

    def __init__(
        self, served: Served, found: dict[str, Offer], health: Health, among: Connections, max_message: int
    ) -> None:
        super().__init__(max_message=max_message, ping_every=PING_EVERY)
        self.served = served
        self.offers = found
        self.health = health
        self.peer = Peer()
        self.running = 0
        """Calls whose tasks have not ended; a stream that was reset may still have one."""
        self._among = among
        self._preface = frames.PREFACE

    def hello(self) -> bytes:
        self._among.add(self)
        self.peer = _peer(self.transport)
        return self.terms({frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS})

    def data_received(self, data: bytes) -> None:
        if self._preface:
            size = len(self._preface)
            if data[:size] != self._preface[: len(data)]:
                self.abort("the peer does not speak HTTP/2")
                return
            self._preface, data = self._preface[len(data) :], data[size:]
        if data:
            super().data_received(data)

    def introduced(self) -> None:
        """Nothing waits for it."""

    def opened(self, id: int, fields: dict[str, str], end: bool) -> None:
        if id <= self.highest:
            # Trailers of a call that is over.
            return
        if not id & 1:
            raise Broken(Code.PROTOCOL_ERROR, "a caller's stream has an even number")
        self.highest = id
        if self.closed or self.leaving:
            # Sent before the caller heard that we leave; it will know that this call was not taken.
            return
        self.last = id
        if max(self.running, len(self.streams)) >= MAX_STREAMS:
            self.write(frames.reset(id, Code.REFUSED_STREAM))
            return
        stream = self.streams[id] = ServerStream(self, id)
        stream.ended = end
        stream.begin(fields)

    def ended(self) -> None:
        self._among.discard(self)

    def leave(self) -> None:
        """Take no more calls; those that run go on."""
        if not self.leaving:
            self.leaving = True
            self.write(frames.goaway(self.last, Code.NO_ERROR))
            if not self.streams:
                self.close()

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        if self.leaving and not self.streams and not self.closed:
            self.close()


def _peer(transport: asyncio.Transport) -> Peer:
    """The caller's address as a URL; callers over Unix sockets have none of their own."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return Peer(address=f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    return Peer(address="unix://")
