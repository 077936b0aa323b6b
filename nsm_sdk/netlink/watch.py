# SPDX-License-Identifier: Apache-2.0
"""Link and address events of one namespace, as an async iterator.

Does:  subscribes a netlink socket inside the namespace and turns notifications into LinkEvents, within the kernel's own
       time: nothing is polled. An overflow becomes the event `lost`, after which the reader looks for itself.
Place: heal's carrier probe; anything that waits for an interface.
State: the socket, and a bounded queue of events not yet read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from nsm_sdk.core import Mailbox
from nsm_sdk.netlink import answers, codec
from nsm_sdk.netlink.namespaces import inside, open_namespace

_GROUPS: Final = 0x1 | 0x10 | 0x100
_QUEUE: Final = 4096
_BUFFER: Final = 1 << 16
_ENOUGH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEvent:
    """Something happened to link `index`. `kind`: up, down, deleted, address-added, address-removed, lost."""

    kind: str
    index: int = 0
    name: str = ""
    address: str = ""


class SocketWatch(Mailbox[LinkEvent]):
    """Implements the LinkWatch port; also an async context manager."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(_QUEUE)
        self._socket = channel
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.fileno(), self._readable)

    @classmethod
    async def open(cls, url: str | int) -> SocketWatch:
        """Starts to watch; FailedPrecondition where the namespace is gone."""
        opening = asyncio.get_running_loop().run_in_executor(None, _subscribe, url)
        try:
            return cls(await asyncio.shield(opening))
        except asyncio.CancelledError:
            # The thread goes on: nobody else would close what it opens.
            opening.add_done_callback(_close_unclaimed)
            raise

    async def __aenter__(self) -> SocketWatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the iteration; may be repeated."""
        if not self.ended:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self.end()

    def _put(self, event: LinkEvent) -> None:
        if self.full:
            self.clear()
            event = LinkEvent(kind="lost")
        self.post(event)

    def _readable(self) -> None:
        # a storm of events elsewhere must not hold the loop
        for _ in range(_ENOUGH):
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                break
            except OSError:
                self._put(LinkEvent(kind="lost"))
                break
            for kind, _, _, body in codec.split(data):
                event = _event(kind, body)
                if event is not None:
                    self._put(event)


def _event(kind: int, body: bytes) -> LinkEvent | None:
    if kind in (codec.NEWLINK, codec.DELLINK):
        link = answers.link(body)
        alive = "up" if link.up and link.carrier else "down"
        word = "deleted" if kind == codec.DELLINK else alive
        return LinkEvent(kind=word, index=link.index, name=link.name)
    if kind in (codec.NEWADDR, codec.DELADDR):
        found = answers.address(body)
        if found is not None:
            index, address = found
            word = "address-added" if kind == codec.NEWADDR else "address-removed"
            return LinkEvent(kind=word, index=index, address=address.ip)
    return None


def _close_unclaimed(opening: asyncio.Future[socket.socket]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _subscribe(url: str | int) -> socket.socket:
    def make() -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        channel = socket.socket(socket.AF_NETLINK, kind, 0)
        try:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            channel.bind((0, _GROUPS))
        except BaseException:
            channel.close()
            raise
        return channel

    handle, _ = open_namespace(url)
    try:
        return inside(handle, make)
    finally:
        os.close(handle)
