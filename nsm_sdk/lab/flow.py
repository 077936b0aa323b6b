# SPDX-License-Identifier: Apache-2.0
"""A ping that never waits: one echo request every few milliseconds, whatever became of those before.

Does:  sends at a steady pace, notes what is answered, and tells how many were lost since when and for how long. It can
       be pointed elsewhere while it runs, as a connection moves.
Place: the demo of healing, the matrix of faults.
State: one raw socket; those that are not answered yet, or never were.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from nsm_sdk.errors import NsmError
from nsm_sdk.lab.echo import checksum, echo_socket
from nsm_sdk.netlink import namespace_path, run_inside

INTERVAL = 0.01
"""Seconds between two."""
LATE = 0.5
"""Seconds after which the last ones are not waited for any more."""


class Flow:
    """Echo requests in one direction; use `flowing`."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self.sent = 0
        self.answered = 0
        self._open: dict[int, float] = {}
        self._channel: socket.socket | None = None
        self._target = ""
        self._six = False
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
            self._channel, self._target, self._six = channel, target, ":" in target
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
        number = struct.pack("!Q", self.sent)
        head = struct.pack("!BBHHH", 128 if self._six else 8, 0, 0, 0x4E53, self.sent & 0xFFFF) + number + bytes(16)
        packet = head if self._six else head[:2] + struct.pack("!H", checksum(head)) + head[4:]
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
            answer = data if self._six else data[(data[0] & 15) * 4 :]
            if answer[:1] == (b"\x81" if self._six else b"\0") and answer[4:6] == b"NS" and len(answer) >= 16:
                (number,) = struct.unpack_from("!Q", answer, 8)
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
