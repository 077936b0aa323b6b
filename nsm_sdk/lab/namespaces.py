# SPDX-License-Identifier: Apache-2.0
"""Pods that are network namespaces of this machine.

Does:  makes and removes them, looks into them with sockets that are closed again at once (an open one would keep a
       namespace alive), and gives forwarders the kernel datapath.
Place: `Ground.KERNEL`; needs root. Everything that blocks runs in a thread.
State: the namespaces made and not yet removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio

from nsm_sdk.core import Service
from nsm_sdk.lab.ground import Pinging, Way
from nsm_sdk.lab.ping import Echo
from nsm_sdk.mechanisms import Datapath, KernelDatapath, Link
from nsm_sdk.netlink import (
    KernelAdapter,
    NetlinkThread,
    Resident,
    create_namespace,
    delete_namespace,
    namespace_path,
    namespace_url,
)
from nsm_sdk.netlink.codec import read_attributes
from nsm_sdk.netlink.kernel import NamespaceAdapter
from nsm_sdk.netlink.requests import look_up
from nsm_sdk.netlink.sockets import NetlinkSocket, Refused

T = TypeVar("T")
_OURS = range(0x40000000, 0x80000000)


class KernelField:
    """Implements `Field`. `orphan_timeout`: as of `KernelDatapath`."""

    def __init__(self, *, orphan_timeout: float | None = None) -> None:
        self._orphan_timeout = orphan_timeout
        self._made: dict[str, str] = {}
        self._residents: dict[str, list[Resident]] = {}

    async def make(self, name: str) -> str:
        url = namespace_url(name)
        self._made[url] = name
        # Half made is not made: whoever cancels waits for the millisecond that it takes.
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(create_namespace, name)
        return url

    async def remove(self, url: str) -> None:
        for stays in self._residents.pop(url, ()):
            stays.leave()
        name = self._made.pop(url, None)
        if name is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(delete_namespace, name)

    def resident(self, url: str) -> Service:
        # One that stays would keep the namespace when the pod is removed.
        stays = Resident(url)
        self._residents.setdefault(url, []).append(stays)
        return stays

    async def links(self, url: str) -> list[Link]:
        found = await self._look(url, lambda space: space.links())
        return [link for link in found if link.name != "lo"]

    async def unlink(self, url: str, name: str) -> bool:
        def work(space: NamespaceAdapter) -> bool:
            link = space.link(name=name)
            return link is not None and space.delete_link(link.index)

        return await self._look(url, work)

    async def rules(self, url: str) -> int:
        return await self._look(url, lambda space: len(space.observe(0, _OURS).rules))

    async def routes(self, url: str) -> int:
        def work(space: NamespaceAdapter) -> int:
            return sum(len(space.observe(link.index, range(0)).routes) for link in space.links() if link.name != "lo")

        return await self._look(url, work)

    async def pinging(self, url: str, source: str, target: str) -> Pinging:
        return await Echo.open(namespace_path(url), source, target)

    async def route_get(self, url: str, target: str, source: str = "") -> Way | None:
        return await self._look(url, lambda space: _route_get(space, target, source))

    def datapath(self, forwarder: str, state: Path) -> Datapath:
        return KernelDatapath(NetlinkThread(), name=forwarder, state=state, orphan_timeout=self._orphan_timeout)

    async def aclose(self) -> None:
        for url in list(self._made):
            await self.remove(url)

    async def _look(self, url: str, fn: Callable[[NamespaceAdapter], T]) -> T:
        def work() -> T:
            with contextlib.closing(KernelAdapter(open_ping=False)) as kernel:
                return fn(kernel.open(url))

        return await asyncio.to_thread(work)


def _route_get(space: NamespaceAdapter, target: str, source: str) -> Way | None:
    channel: NetlinkSocket = space.channel
    try:
        answer = channel.get(look_up(target, source))
    except Refused:
        return None
    if answer is None:
        return None
    table, kind = answer[4], answer[7]
    found = read_attributes(answer, 12)
    index = int.from_bytes(found.get(4, b"\0" * 4), "little")
    link = space.link(index=index)
    if kind != 1 or link is None:
        return None
    gateway, chosen = found.get(5, b""), found.get(7, b"")
    return Way(
        interface=link.name,
        source=str(ipaddress.ip_address(chosen)) if chosen else source,
        gateway=str(ipaddress.ip_address(gateway)) if gateway else "",
        table=int.from_bytes(found[15], "little") if 15 in found else table,
    )
