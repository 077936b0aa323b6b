# SPDX-License-Identifier: Apache-2.0
"""ICMP echo from inside a namespace.

Does:  opens a raw socket in the namespace (it stays there whoever uses it), sends echo requests of either family, and
       waits for their answers on the event loop.
Place: the kernel ground of the lab.
State: one socket.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct

import anyio

from nsm_sdk.errors import FailedPrecondition, Internal
from nsm_sdk.netlink import run_inside

_identities = itertools.count(1)


def echo_socket(source: str) -> socket.socket:
    """A raw socket for echo requests from `source`, in the namespace of the calling thread."""
    six = ":" in source
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        made.setblocking(False)
        made.bind((source, 0))
    except BaseException:
        made.close()
        raise
    return made


class Echo:
    """Implements `Pinging` with real packets."""

    def __init__(self, channel: socket.socket, target: str) -> None:
        self._channel = channel
        self._target = target
        self._six = ":" in target
        self._identity = next(_identities) & 0xFFFF
        self._sequence = 0

    @classmethod
    async def open(cls, namespace: str, source: str, target: str) -> Echo:
        """Get ready inside `namespace`; FailedPrecondition when it has no address `source`."""
        try:
            channel = await asyncio.to_thread(run_inside, namespace, lambda: echo_socket(source))
        except Internal as error:
            raise FailedPrecondition(
                f"namespace {namespace} cannot send from {source}: {error.message}",
                hint="see that the connection is established there",
            ) from error
        return cls(channel, target)

    async def echo(self, timeout: float) -> float | None:
        loop = asyncio.get_running_loop()
        self._sequence = (self._sequence + 1) & 0xFFFF
        head = struct.pack("!BBHHH", 128 if self._six else 8, 0, 0, self._identity, self._sequence) + bytes(24)
        packet = head if self._six else head[:2] + struct.pack("!H", checksum(head)) + head[4:]
        began = loop.time()
        with anyio.move_on_after(timeout):
            try:
                self._channel.sendto(packet, (self._target, 0))
                while True:
                    data, sender = await loop.sock_recvfrom(self._channel, 2048)
                    answer = data if self._six else data[(data[0] & 15) * 4 :]
                    if (
                        sender[0].partition("%")[0] == self._target
                        and answer[:1] == (b"\x81" if self._six else b"\0")
                        and answer[4:8] == head[4:8]
                    ):
                        return loop.time() - began
            except OSError:
                # No way there at the moment: as lost as a packet that nobody answers.
                await anyio.sleep(max(timeout - (loop.time() - began), 0.0))
        return None

    def close(self) -> None:
        self._channel.close()


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
