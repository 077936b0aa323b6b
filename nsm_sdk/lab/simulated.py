# SPDX-License-Identifier: Apache-2.0
"""Pods without a network: connections are only booked.

Does:  a ping succeeds when some forwarder has joined a connection with these two addresses between its pods. The books
       outlive a forwarder, as interfaces would. Forwarders that are programs keep books of their own; they are asked
       for their connections, and say nothing of pods.
Place: `Ground.SIMULATED`.
State: what is joined, by forwarder; the pods that exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from nsm_sdk.api import Connection
from nsm_sdk.core import Runtime, Service
from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.lab.ground import AskedPinging, Pinging, Way
from nsm_sdk.mechanisms import Datapath, Joint, Link, SimulatedDatapath
from nsm_sdk.mechanisms.clients import Held

Told = Callable[[], Awaitable[Iterable[Mapping[str, Any]]]]
End = tuple[str, str, list[str], list[str]]
"""(pod, interface, addresses of this side, addresses of the other) of one end of a connection."""
ANYWHERE = "*"


class Books(SimulatedDatapath):
    """A simulated datapath that also remembers what it joined."""

    def __init__(self, residents: Counter[str]) -> None:
        super().__init__()
        self.joined: dict[str, tuple[End, End]] = {}
        """The two ends of each connection, as plain values: messages would take ten times as much."""
        self._residents = residents

    def occupied(self, held: Held) -> bool:
        return self._residents[held.url] > 0 or super().occupied(held)

    async def join(self, joint: Joint) -> list[str]:
        gone = await super().join(joint)
        ip = joint.connection.context.ip_context
        mine, theirs = _plain(ip.src_ip_addrs), _plain(ip.dst_ip_addrs)
        near, far = joint.near.parameters, joint.far.parameters
        self.joined[joint.id] = (
            (near.get("inodeURL", ""), near.get("name", ""), mine, theirs),
            (far.get("inodeURL", ""), far.get("name", ""), theirs, mine),
        )
        return gone

    async def part(self, conn: Connection) -> None:
        await super().part(conn)
        self.joined.pop(conn.id, None)

    async def part_where(self, wanted: Callable[[End], bool]) -> bool:
        """Part every connection with an end that is wanted; whether there was one."""
        ids = [conn_id for conn_id, ends in self.joined.items() if any(map(wanted, ends))]
        for conn_id in ids:
            await self.part(Connection(id=conn_id))
        return bool(ids)


class SimulatedField:
    """Implements `Field`. `told`: what programs say of the connections that they join."""

    def __init__(self, told: Told | None = None) -> None:
        self._told = told
        self._pods: set[str] = set()
        self._books: dict[str, Books] = {}
        self._residents: Counter[str] = Counter()

    async def make(self, name: str) -> str:
        url = f"file:///run/netns/{name}"
        self._pods.add(url)
        return url

    async def remove(self, url: str) -> None:
        self._pods.discard(url)
        for books in self._books.values():
            await books.part_where(lambda end: end[0] == url)

    def resident(self, url: str) -> Service:
        return _Resident(self._residents, url)

    async def links(self, url: str) -> list[Link]:
        if url not in self._pods:
            raise FailedPrecondition(f"namespace {url!r} is gone", hint="see that its pod is still there")
        return [Link(name=name) for space, name, _, _ in await self._ends() if space == url]

    async def unlink(self, url: str, name: str) -> bool:
        found = [await books.part_where(lambda end: end[:2] == (url, name)) for books in self._books.values()]
        return any(found)

    async def rules(self, url: str) -> int:
        return 0

    async def routes(self, url: str) -> int:
        return 0

    async def pinging(self, url: str, source: str, target: str) -> Pinging:
        return AskedPinging(self, url, source, target)

    async def route_get(self, url: str, target: str, source: str = "") -> Way | None:
        for space, name, mine, theirs in await self._ends():
            if space in (url, ANYWHERE) and target in theirs:
                return Way(interface=name, source=mine[0] if mine else "")
        return None

    def datapath(self, forwarder: str, state: Path) -> Datapath:
        return self._books.setdefault(forwarder, Books(self._residents))

    async def aclose(self) -> None:
        self._pods.clear()

    async def reaches(self, url: str, source: str, target: str) -> bool:
        """Whether a connection leads from `source` in that pod to `target` in a pod that exists."""
        return url in self._pods and any(
            space in (url, ANYWHERE) and source in mine and target in theirs
            for space, _, mine, theirs in await self._ends()
        )

    async def _ends(self) -> list[End]:
        found = [end for books in self._books.values() for ends in books.joined.values() for end in ends]
        for line in await self._told() if self._told is not None else ():
            mine, theirs = _plain(line.get("src", ())), _plain(line.get("dst", ()))
            found += [(ANYWHERE, line.get("interface", ""), mine, theirs), (ANYWHERE, "", theirs, mine)]
        return found


class _Resident(Service):
    """Counts who lives in a pod."""

    def __init__(self, residents: Counter[str], url: str) -> None:
        self._residents = residents
        self._url = url

    async def start(self, runtime: Runtime) -> None:
        self._residents[self._url] += 1

    async def stop(self) -> None:
        self._residents[self._url] -= 1


def _plain(addresses: Iterable[str]) -> list[str]:
    return [text.partition("/")[0] for text in addresses]
