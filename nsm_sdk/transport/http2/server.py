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

from nsm_sdk.core import Peer, Served
from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.answering import ServerStream
from nsm_sdk.transport.http2.connection import RESET_COST, Connection, Connections
from nsm_sdk.transport.http2.frames import Broken, Code
from nsm_sdk.transport.http2.headers import REQUEST, TRAILERS
from nsm_sdk.transport.http2.health import Health
from nsm_sdk.transport.http2.stream import Stream
from nsm_sdk.transport.offers import Offer
from nsm_sdk.transport.settings import MAX_STREAMS

PING_EVERY: Final = 300.0
"""Seconds of silence after which a caller is pinged."""
ROUND: Final = 0.25
"""Seconds that a caller gets to confirm that it makes no more calls."""
LINGER: Final = 0.1
"""Seconds that a caller gets to hang up after its last answer."""
GOODBYE: Final = "the hop stops"
"""The reason in a GOAWAY."""
_FAREWELL: Final = b"farewell"


class ServerConnection(Connection["ServerStream"]):
    """One caller's connection."""

    def __init__(
        self,
        served: Served,
        found: dict[str, Offer],
        health: Health,
        among: Connections[ServerConnection],
        max_message: int,
    ) -> None:
        super().__init__(among, max_message=max_message, ping_every=PING_EVERY)
        self.served = served
        self.offers = found
        self.health = health
        self.peer = Peer()
        self.running = 0
        """Calls whose tasks have not ended; a stream that was reset may still have one."""
        self.starting: list[ServerStream] = []
        """Calls whose message has come with the bytes that are being read."""
        self.incoming = 0
        """Calls whose message has not come yet."""
        self._preface = frames.PREFACE
        self._farewell: asyncio.TimerHandle | None = None

    def hello(self) -> bytes:
        self.peer = _peer(self.transport)
        return self.terms({frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS})

    def introduced(self) -> None:
        """Nothing waits for it."""

    def expects(self, stream: ServerStream | None, end: bool) -> frozenset[str]:
        return TRAILERS if stream is not None else REQUEST

    def opened(self, id: int, fields: dict[str, str] | None, end: bool) -> None:
        if id <= self.highest:
            if id not in self._cut:
                raise Broken(Code.PROTOCOL_ERROR, "a stream's number is lower than the last one's")
            # Trailers of a call that we have ended.
            return
        if not id & 1:
            raise Broken(Code.PROTOCOL_ERROR, "a caller's stream has an even number")
        self.highest = id
        if self.closed or self.leaving:
            # Sent before the caller heard that we leave; it will know that this call was not taken.
            self.note_cut(id)
            return
        self.last = id
        if fields is None:
            return
        if max(self.running, len(self.streams)) >= MAX_STREAMS:
            self.spend(RESET_COST)
            self.note_cut(id)
            self.write(frames.reset(id, Code.REFUSED_STREAM))
            return
        stream = self.streams[id] = ServerStream(self, id)
        stream.ended = end
        stream.begin(fields)

    def data_received(self, data: bytes) -> None:
        if self._preface:
            size = len(self._preface)
            if data[:size] != self._preface[: len(data)]:
                self.abort("the peer does not speak HTTP/2")
                return
            self._preface, data = self._preface[len(data) :], data[size:]
        if data:
            super().data_received(data)
        if self.starting:
            starting, self.starting = self.starting, []
            with self.together:
                for stream in starting:
                    stream.start()

    def ended(self) -> None:
        if self._farewell is not None:
            self._farewell.cancel()
        super().ended()

    @property
    def settled(self) -> bool:
        """Whether no more calls will come, and those that were taken have begun."""
        return self.closed or (self.leaving and not self.incoming)

    def announce(self) -> None:
        """Ask the caller for no more calls; those that are on their way are still taken (see `leave`)."""
        if not self.leaving and self._farewell is None:
            self._farewell = self._loop.call_later(ROUND, self.leave)
            # The answer to the ping comes after all that was sent before the caller heard.
            goodbye = frames.goaway(frames.LARGEST, Code.NO_ERROR, GOODBYE)
            self.write(goodbye + frames.frame(frames.PING, 0, 0, _FAREWELL))

    def pinged_back(self, payload: bytes) -> None:
        if payload == _FAREWELL:
            self.leave()

    def leave(self) -> None:
        """Take no more calls; those that run go on."""
        if not self.leaving:
            self.leaving = True
            if self._farewell is not None:
                self._farewell.cancel()
            self.dismissed = True
            self.write(frames.goaway(self.last, Code.NO_ERROR, GOODBYE))
            self._end_if_unused()
            self.among.changed()

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        self._end_if_unused()

    def cut(self) -> None:
        """End the streams that no task of the role ends."""
        for stream in list(self.streams.values()):
            stream.cut_off()

    def _end_if_unused(self) -> None:
        if self.leaving and not self.streams and not self.closed:
            # The caller hangs up when it has read its last answer. If we did, with something of its still unread, the
            # kernel would take the answer back.
            self._farewell = self._loop.call_later(LINGER, self.close)


def _peer(transport: asyncio.Transport) -> Peer:
    """The caller's address as a URL; callers over Unix sockets have none of their own."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return Peer(address=f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    return Peer(address="unix://")
