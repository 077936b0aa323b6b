# SPDX-License-Identifier: Apache-2.0
"""gRPC on a socket of our own, client side of one connection.

Does:  makes calls; turns answers, resets and lost connections into messages and errors.
Place: below `carrier`, which connects.
State: the calls that are running, and those that wait for the peer to allow another.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from nsm_sdk.errors import Exhausted
from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.calling import ClientStream
from nsm_sdk.transport.http2.connection import Connection, Connections
from nsm_sdk.transport.http2.frames import Code
from nsm_sdk.transport.http2.headers import (
    RESPONSE,
    TRAILERS,
    Fixed,
    Pairs,
    size_of,
    timeout_text,
)
from nsm_sdk.transport.http2.stream import Stream

AGENT: Final = "nsm-sdk-python"


class ClientConnection(Connection["ClientStream"]):
    """Our side of a connection to a peer. `settled` is called once: the peer is there (""), or why it is not."""

    def __init__(
        self,
        authority: str,
        among: Connections[ClientConnection],
        *,
        max_message: int,
        ping_every: float,
        settled: Callable[[str], None],
    ) -> None:
        super().__init__(among, max_message=max_message, ping_every=ping_every)
        self.goodbye = ""
        """What the peer said when it announced the end of the connection."""
        self.retired = False
        """Whether it gave no error as its reason."""
        self._authority = authority
        self._settled: Callable[[str], None] | None = settled
        self._next = 1
        self._slots: deque[asyncio.Future[None]] = deque()

    @property
    def usable(self) -> bool:
        """Whether another call may be made."""
        return not self.leaving and self._next <= frames.LARGEST

    @property
    def watched(self) -> bool:
        return bool(self.streams)

    def hello(self) -> bytes:
        return frames.PREFACE + self.terms({frames.ENABLE_PUSH: 0})

    def introduced(self) -> None:
        self._settle("")

    def opened(self, id: int, fields: dict[str, str] | None, end: bool) -> None:
        self.late(id)

    def expects(self, stream: ClientStream | None, end: bool) -> frozenset[str]:
        return TRAILERS if stream is not None and stream.opened else RESPONSE

    def leave(self) -> None:
        self.close()

    def told_to_leave(self, last: int, code: int, text: str) -> None:
        self.goodbye, self.retired = text, code == Code.NO_ERROR
        for stream in list(self.streams.values()):
            if stream.id > last:
                stream.gone(text, None, handled=False)
        self._leave_if_unused()

    def broken(self, text: str) -> None:
        super().broken(f"{text}: {self.goodbye}" if self.goodbye else text)

    def ended(self) -> None:
        super().ended()
        self._settle("the peer does not speak HTTP/2, or closed the connection")
        self._let_in()

    def _settle(self, why: str) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(why)

    def give_up(self) -> None:
        """Nobody wants this connection, which may never have stood."""
        self._settled = None
        if not self.closed and self.connected:
            self.abort("nobody wants it")

    def drop(self) -> None:
        """No more calls; the connection ends with the last one."""
        self.leaving = True
        self._leave_if_unused()

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        if self._slots:
            self._let_in()
        if self.leaving:
            self._leave_if_unused()

    def _leave_if_unused(self) -> None:
        if not self.streams and not self.closed:
            self.close()

    def _let_in(self) -> None:
        while self._slots and (self.leaving or len(self.streams) < self.peer_streams):
            waiting = self._slots.popleft()
            if not waiting.done():
                waiting.set_result(None)
                if not self.leaving:
                    return

    async def slot(self) -> None:
        """Wait until the peer allows another call."""
        while not self.leaving and len(self.streams) >= self.peer_streams:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._slots.append(waiting)
            try:
                await waiting
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled():
                    self._let_in()
                raise

    def begin(self, stream: ClientStream, left: float, metadata: Pairs, raw: bytes | None, *, end: bool) -> None:
        """Send the headers of a call, and its first message if there is one. The connection must be `usable`."""
        if self.peer_headers < math.inf and size_of(metadata) > self.peer_headers:
            raise Exhausted(
                f"{stream.url}: metadata larger than max ({size_of(metadata)} vs. {self.peer_headers})",
                hop=stream.call.runtime.name,
                hint="send less beside the message",
            )
        if raw is not None:
            stream.check(raw)
        self.highest = stream.id = self._next
        self._next += 2
        stream.window = self.peer_window
        self.streams[stream.id] = stream
        varying = list(metadata)
        if left < math.inf:
            varying.append(("grpc-timeout", timeout_text(left)))
        with self.together:
            self.headers(stream.id, self._fixed(stream.path), varying)
            if raw is not None:
                stream.send(raw, end=end)

    def _fixed(self, path: str) -> Fixed:
        return (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", AGENT),
        )
