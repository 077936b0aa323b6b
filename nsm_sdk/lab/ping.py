# SPDX-License-Identifier: Apache-2.0
"""Pings from inside a namespace.

Does:  opens a raw socket in the namespace (it stays there whoever uses it). `Echo` sends one request and waits for its
       answer on the event loop; `Flow` never waits: one request every few milliseconds, whatever became of those
       before. It notes what is answered, tells how many were lost since when and for how long, and can be pointed
       elsewhere while it runs, as a connection moves.
Place: the kernel ground of the lab; the demo of healing, the matrix of faults.
State: one socket; a flow has those that are not answered yet, or never were.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from nsm_sdk.errors import FailedPrecondition, Internal, NsmError
from nsm_sdk.heal.probes.icmp import echo_reply, echo_request
from nsm_sdk.netlink import namespace_path, run_inside

INTERVAL = 0.01
"""Seconds between two."""
LATE = 0.5
"""Seconds after which the last ones are not waited for any more."""
_IDENTITY = 0x4E53
_NUMBER = struct.Struct("!Q16x")
_identities = itertools.count(1)


def echo_socket(source: str) -> socket.socket:
    """A raw socket for echo requests from `source`, in the namespace of the calling thread."""
    family = _family(source)
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        made.setblocking(False)
        made.bind((source, 0))
    except BaseException:
        made.close()
        raise
    return made


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Echo:
    """Implements `Pinging` with real packets."""

    def __init__(self, channel: socket.socket, target: str) -> None:
        self._channel = channel
        self._target = target
        self._family = _family(target)
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
        packet = echo_request(self._family, self._identity, self._sequence, bytes(24))
        began = loop.time()
        with anyio.move_on_after(timeout):
            try:
                self._channel.sendto(packet, (self._target, 0))
                while True:
                    data, sender = await loop.sock_recvfrom(self._channel, 2048)
                    found = echo_reply(self._family, data)
                    wanted = found is not None and found[:2] == (self._identity, self._sequence)
                    if wanted and sender[0].partition("%")[0] == self._target:
                        return loop.time() - began
            except OSError:
                # No way there at the moment: as lost as a packet that nobody answers.
                await anyio.sleep(max(timeout - (loop.time() - began), 0.0))
        return None

    def close(self) -> None:
        self._channel.close()


class Flow:
    """Echo requests in one direction; use `flowing`."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self.sent = 0
        self.answered = 0
        self._open: dict[int, float] = {}
        self._channel: socket.socket | None = None
        self._target = ""
        self._family: int = socket.AF_INET
        self._way = ("", "", "")

    async def aim(self, url: str, source: str, target: str) -> None:
        """From now on from `source` in the namespace `url` to `target`; what cannot be sent from there is lost."""
        way = (url, source, target)
        if way == self._way and self._channel is not None:
            return
        self.rest()
        self._way = way
        with contextlib.suppress(OSError, NsmError):
            channel = await asyncio.to_thread(run_inside, namespace_path(url), lambda: echo_socket(source))
            self._channel, self._target, self._family = channel, target, _family(target)
            asyncio.get_running_loop().add_reader(channel.fileno(), self._read, channel)

    def rest(self) -> None:
        """Let go of the namespace: whoever removes it wants it to end. What would be sent now is lost."""
        channel, self._channel = self._channel, None
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel.fileno())
            channel.close()

    def lost(self, since: float = 0.0, until: float = math.inf) -> int:
        """How many of those sent in that time, by the loop's clock, have not been answered."""
        return sum(since <= at <= until for at in self._open.values())

    def silence(self, since: float = 0.0, until: float = math.inf) -> float:
        """Seconds from the first to the last that was lost in that time."""
        lost = [at for at in self._open.values() if since <= at <= until]
        return max(lost) - min(lost) + self.interval if lost else 0.0

    async def settled(self) -> float:
        """Wait until those under way are answered, or are late; answers the moment until which that holds."""
        now = asyncio.get_running_loop().time()
        for _ in range(int(LATE / self.interval)):
            if not any(now - LATE < at <= now for at in self._open.values()):
                break
            await asyncio.sleep(self.interval)
        return now

    async def run(self) -> None:
        """Send, for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._send(loop.time())
            # What a busy machine has missed is not made up for: that would be a burst.
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())

    def _send(self, now: float) -> None:
        self.sent += 1
        self._open[self.sent] = now
        if self._channel is None:
            return
        packet = echo_request(self._family, _IDENTITY, self.sent & 0xFFFF, _NUMBER.pack(self.sent))
        # No way there at the moment: as lost as a packet that nobody answers.
        with contextlib.suppress(OSError):
            self._channel.sendto(packet, (self._target, 0))

    def _read(self, channel: socket.socket) -> None:
        while True:
            try:
                data, sender = channel.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                continue
            found = echo_reply(self._family, data)
            if found is not None and found[0] == _IDENTITY and len(found[2]) >= _NUMBER.size:
                (number,) = _NUMBER.unpack_from(found[2])
                if sender[0].partition("%")[0] == self._target and self._open.pop(number, None) is not None:
                    self.answered += 1


@asynccontextmanager
async def flowing(interval: float = INTERVAL) -> AsyncGenerator[Flow, None]:
    """A flow for the length of the block; it is lost until it is aimed."""
    flow = Flow(interval)
    task = asyncio.create_task(flow.run(), name="flow")
    try:
        yield flow
    finally:
        task.cancel()
        await asyncio.wait([task])
        flow.rest()
