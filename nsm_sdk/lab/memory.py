# SPDX-License-Identifier: Apache-2.0
"""Pods on a kernel in memory: the real datapath, pretended namespaces.

Does:  as on the machine's kernel, but without privileges and in virtual time: interfaces are made and named, addresses
       and routes are set, a ping goes where a route, a pair and an address are.
Place: `Ground.MEMORY`.
State: the pretended machine.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from nsm_sdk.core import Runtime, Service
from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.lab.ground import AskedPinging, Pinging, Way
from nsm_sdk.mechanisms import Datapath, KernelDatapath, Link
from nsm_sdk.netlink import FakeNamespace, FakeNetlink


class MemoryField:
    """Implements `Field`. `orphan_timeout`: as of `KernelDatapath`."""

    def __init__(self, *, orphan_timeout: float | None = None) -> None:
        self.netlink = FakeNetlink()
        self._orphan_timeout = orphan_timeout
        self._pods: set[str] = set()

    async def make(self, name: str) -> str:
        url = f"file:///run/netns/{name}"
        self.netlink.add_namespace(url)
        self._pods.add(url)
        return url

    async def remove(self, url: str) -> None:
        self._pods.discard(url)
        self.netlink.remove_namespace(url)

    def resident(self, url: str) -> Service:
        return _Resident(self.netlink, url)

    async def links(self, url: str) -> list[Link]:
        return self.netlink.open(url).links()

    async def unlink(self, url: str, name: str) -> bool:
        space = self.netlink.open(url)
        link = space.link(name=name)
        return link is not None and space.delete_link(link.index)

    async def rules(self, url: str) -> int:
        return len(self.netlink.open(url).rules)

    async def routes(self, url: str) -> int:
        return sum(len(seen.routes) for seen in self.netlink.open(url).state.values())

    async def pinging(self, url: str, source: str, target: str) -> Pinging:
        return AskedPinging(self, url, source, target)

    async def route_get(self, url: str, target: str, source: str = "") -> Way | None:
        space = self._space(url)
        if space is None:
            return None
        best: tuple[int, Way] | None = None
        for seen in space.state.values():
            if seen.link is None or not seen.link.up:
                continue
            mine = next((one.ip for one in seen.addresses if (":" in one.ip) == (":" in target)), "")
            for route in seen.routes:
                if _covers(f"{route.dst}/{route.prefix}", target) and (best is None or route.prefix > best[0]):
                    best = route.prefix, Way(interface=seen.link.name, source=source or mine, gateway=route.gateway)
        return best[1] if best is not None else None

    def datapath(self, forwarder: str, state: Path) -> Datapath:
        return KernelDatapath(self.netlink, name=forwarder, state=state, orphan_timeout=self._orphan_timeout)

    async def aclose(self) -> None:
        for url in list(self._pods):
            await self.remove(url)

    async def reaches(self, url: str, source: str, target: str) -> bool:
        """Whether an echo request from `source` in that pod is answered by `target`."""
        way = await self.route_get(url, target)
        space = self._space(url)
        if way is None or space is None or not _has(space, source):
            return False
        link = space.link(name=way.interface)
        if link is None or link.index not in space.peers:
            return False
        other, index = space.peers[link.index]
        peer = other.state.get(index)
        if peer is None or peer.link is None or not peer.link.up or not _has(other, target):
            return False
        back = await self.route_get(other.url, source)
        return back is not None and back.interface == peer.link.name

    def _space(self, url: str) -> FakeNamespace | None:
        try:
            return self.netlink.open(url)
        except FailedPrecondition:
            return None


class _Resident(Service):
    """Says of a namespace that a process is in it."""

    def __init__(self, netlink: FakeNetlink, url: str) -> None:
        self._netlink = netlink
        self._url = url
        self._space: FakeNamespace | None = None

    async def start(self, runtime: Runtime) -> None:
        try:
            self._space = self._netlink.open(self._url)
        except FailedPrecondition:
            return
        self._space.residents += 1

    async def stop(self) -> None:
        if self._space is not None:
            self._space.residents -= 1
            self._space = None


def _has(space: FakeNamespace, ip: str) -> bool:
    return any(one.ip == ip for seen in space.state.values() for one in seen.addresses)


def _covers(prefix: str, ip: str) -> bool:
    network, address = ipaddress.ip_network(prefix, strict=False), ipaddress.ip_address(ip)
    return network.version == address.version and address in network
