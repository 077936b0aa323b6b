# SPDX-License-Identifier: Apache-2.0
"""What pods stand on, as the lab sees it.

Does:  `Field` makes and removes the network of pods, looks at it, pings, and gives forwarders a datapath on it. The
       three grounds implement it.
Place: under `Pod` and the forwarders of the lab.
State: none here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio.lowlevel

from nsm_sdk.core import Service
from nsm_sdk.mechanisms import Datapath, Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a packet would go."""

    interface: str
    source: str = ""
    gateway: str = ""
    table: int = 254


class Pinging(Protocol):
    """Echo requests from one address to another, one after the other."""

    async def echo(self, timeout: float) -> float | None:
        """Send one and wait for its answer: seconds, or None when none came within `timeout` seconds."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Field(Protocol):
    """The network of a machine. `url` is that of a namespace."""

    async def make(self, name: str) -> str:
        """Make a network called `name` and answer its URL."""
        ...

    async def remove(self, url: str) -> None:
        """Remove it; fine when it is gone."""
        ...

    def resident(self, url: str) -> Service:
        """What lives there while it is served, as a process of a pod does."""
        ...

    async def links(self, url: str) -> list[Link]:
        """Its interfaces, without the loopback. FailedPrecondition when it is gone."""
        ...

    async def unlink(self, url: str, name: str) -> bool:
        """Delete an interface, as somebody by hand would; False when there is none of that name."""
        ...

    async def rules(self, url: str) -> int:
        """How many policy rules of ours it has."""
        ...

    async def routes(self, url: str) -> int:
        """How many routes it has."""
        ...

    async def pinging(self, url: str, source: str, target: str) -> Pinging:
        """Get ready to ping `target` from `source` inside."""
        ...

    async def route_get(self, url: str, target: str, source: str = "") -> Way | None:
        """The way to `target`; None when there is none."""
        ...

    def datapath(self, forwarder: str, state: Path) -> Datapath:
        """A datapath for a forwarder that starts now, with its records in the folder `state`."""
        ...

    async def aclose(self) -> None:
        """Remove what was made and is still there."""
        ...


class Reaches(Protocol):
    """A ground that knows without packets whether one address is answered by another."""

    async def reaches(self, url: str, source: str, target: str) -> bool:
        """Whether an echo request from `source` in that pod is answered by `target`."""
        ...


class AskedPinging:
    """Pings without packets, between two addresses: it asks the ground."""

    def __init__(self, ground: Reaches, url: str, source: str, target: str) -> None:
        self._ground = ground
        self._way = (url, source, target)

    async def echo(self, timeout: float) -> float | None:
        """0 seconds where it is answered; None after `timeout` seconds where it is not."""
        await anyio.lowlevel.checkpoint()
        if await self._ground.reaches(*self._way):
            return 0.0
        await anyio.sleep(timeout)
        return None

    def close(self) -> None:
        """Nothing is held."""
