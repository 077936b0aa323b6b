# SPDX-License-Identifier: Apache-2.0
"""A pod: the network of a workload.

Does:  looks into it and pings from it; what it stands on is the cluster's business. Clients and endpoints live in one.
Place: made by `Node.pod`.
State: none besides the namespace itself.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.lab.ground import Field, Way
from nsm_sdk.mechanisms import Link


@dataclass(slots=True)
class Pings:
    """How echo requests fared."""

    sent: int = 0
    times: list[float] = field(default_factory=list)
    """Seconds, of those that were answered."""

    @property
    def lost(self) -> int:
        """How many were not answered."""
        return self.sent - len(self.times)

    @property
    def ok(self) -> bool:
        """Whether some were sent and all were answered."""
        return self.sent > 0 and not self.lost

    @property
    def average(self) -> float:
        """Seconds; NaN when none was answered."""
        return sum(self.times) / len(self.times) if self.times else math.nan


class Pod:
    """The network of one workload; `url` is that of its namespace."""

    def __init__(self, name: str, url: str, field: Field) -> None:
        self.name = name
        self.url = url
        self._field = field

    async def links(self) -> list[Link]:
        """The interfaces, without the loopback. FailedPrecondition when the pod is gone."""
        return await self._field.links(self.url)

    async def unlink(self, name: str) -> bool:
        """Delete an interface by hand; False when there is none of that name."""
        return await self._field.unlink(self.url, name)

    async def route_get(self, target: str, source: str = "") -> Way | None:
        """The way that packets to `target` take; None when there is none."""
        return await self._field.route_get(self.url, target, source)

    async def ping(
        self, target: str, *, source: str, count: int = 1, timeout: float = 1.0, interval: float = 0.0
    ) -> Pings:
        """Send `count` echo requests, each after the answer to the one before or after `timeout` seconds."""
        pings = Pings()
        pinging = await self._field.pinging(self.url, source, target)
        try:
            for number in range(count):
                if number and interval:
                    await anyio.sleep(interval)
                pings.sent += 1
                took = await pinging.echo(timeout)
                if took is not None:
                    pings.times.append(took)
        finally:
            pinging.close()
        return pings

    @asynccontextmanager
    async def pinging(
        self, target: str, *, source: str, interval: float = 0.01, timeout: float = 1.0
    ) -> AsyncGenerator[Pings, None]:
        """Ping all the time while the block runs; what it yields is complete when the block has ended."""
        pings = Pings()
        pinging = await self._field.pinging(self.url, source, target)
        leave = anyio.Event()
        first = anyio.Event()

        async def run() -> None:
            for _ in itertools.count():
                pings.sent += 1
                took = await pinging.echo(timeout)
                if took is not None:
                    pings.times.append(took)
                first.set()
                with anyio.move_on_after(interval):
                    await leave.wait()
                if leave.is_set():
                    return

        # Not a task group: errors of the block shall come out as they are.
        task = asyncio.create_task(run(), name=f"ping {target}")
        try:
            await first.wait()
            yield pings
        finally:
            leave.set()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])
            pinging.close()
        task.result()

    async def remove(self) -> None:
        """End the pod: its interfaces go with it; fine when it is gone."""
        await self._field.remove(self.url)

    async def holds(self) -> dict[str, int]:
        """How many interfaces, routes and rules it has; empty when it is gone."""
        try:
            links = await self._field.links(self.url)
            return {
                "interfaces": len(links),
                "routes": await self._field.routes(self.url),
                "rules": await self._field.rules(self.url),
            }
        except FailedPrecondition:
            return {}

    def __repr__(self) -> str:
        return f"<Pod {self.name} at {self.url}>"


def pairs(sources: Sequence[str], targets: Sequence[str]) -> list[tuple[str, str]]:
    """Every source and target of the same family, without prefix lengths."""
    mine, theirs = ([text.partition("/")[0] for text in texts] for texts in (sources, targets))
    return [(a, b) for a in mine for b in theirs if (":" in a) == (":" in b)]
