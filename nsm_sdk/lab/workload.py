# SPDX-License-Identifier: Apache-2.0
"""Clients and endpoints of the lab.

Does:  `LabClient` requests, refreshes, closes and pings by hand: every call is one call, nothing is tried again.
       `LabEndpoint` gives addresses; it runs here, or as a program.
Place: made by `Node.client` and `Node.endpoint`.
State: the hop; a counter of connections.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from nsm_sdk.api import Connection, Request, ServiceUrl
from nsm_sdk.client import Client, request_for
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.lab.hop import Hop, ServedHop
from nsm_sdk.lab.pod import Pings, Pod, pairs

TIMEOUT = 5.0
"""Seconds for a call, unless told otherwise."""


class _Workload:
    """What clients and endpoints have in common: a hop in a pod."""

    def __init__(self, hop: Hop, pod: Pod) -> None:
        self.hop = hop
        self.pod = pod

    @property
    def name(self) -> str:
        return self.hop.name

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.hop.alive

    async def stop(self) -> None:
        """End it gracefully. The pod stays."""
        await self.hop.stop()

    async def kill(self) -> None:
        """End it as a crash does. The pod stays."""
        await self.hop.kill()

    async def restart(self) -> None:
        """Start it again, with the same name and address."""
        await self.hop.restart()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} in {self.pod.name}>"


class LabEndpoint(_Workload):
    """An endpoint; `prefixes` are what it gives addresses from."""

    def __init__(self, hop: Hop, pod: Pod, prefixes: tuple[str, ...]) -> None:
        super().__init__(hop, pod)
        self.prefixes = prefixes

    async def ping(self, conn: Connection, *, count: int = 1, timeout: float = 1.0) -> Pings:
        """Ping the client of `conn` over every pair of addresses of one family, `count` times each."""
        ip = conn.context.ip_context
        return await _ping_all(self.pod, pairs(ip.dst_ip_addrs, ip.src_ip_addrs), count, timeout)


class LabClient(_Workload):
    """A client whose calls are made by hand."""

    def __init__(self, hop: ServedHop, pod: Pod) -> None:
        super().__init__(hop, pod)
        self.served = hop
        self._numbers = itertools.count()

    @property
    def client(self) -> Client:
        """The client itself. FailedPrecondition while it does not run."""
        block = self.served.block
        assert isinstance(block, Client)
        return block

    async def request(
        self,
        url: str | ServiceUrl,
        *,
        id: str = "",
        endpoint: str = "",
        labels: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        edit: Callable[[Request], None] | None = None,
    ) -> Connection:
        """Ask for a connection to the service `url`, once; the error of the hop that refused it.

        `id`: default `<name>-<number>`; `endpoint`: a particular one; `edit` may change the request before it leaves.
        """
        request = request_for(url, id=id or f"{self.name}-{next(self._numbers)}", labels=labels, endpoint=endpoint)
        if edit is not None:
            edit(request)
        return await self.client.request(request, timeout=timeout)

    async def refresh(self, conn: Connection, *, timeout: float = TIMEOUT) -> Connection:
        """Request the same connection again; returns it as it is now."""
        return await self.client.request(Request(connection=conn), timeout=timeout)

    async def close(self, conn: Connection, *, timeout: float = TIMEOUT) -> None:
        """Close; may be repeated."""
        await self.client.close(conn, timeout=timeout)

    async def ping(self, conn: Connection, *, count: int = 1, timeout: float = 1.0) -> Pings:
        """Ping the endpoint of `conn` over every pair of addresses of one family, `count` times each."""
        ip = conn.context.ip_context
        return await _ping_all(self.pod, pairs(ip.src_ip_addrs, ip.dst_ip_addrs), count, timeout)


async def _ping_all(pod: Pod, ways: list[tuple[str, str]], count: int, timeout: float) -> Pings:
    if not ways:
        raise InvalidRequest("the connection has no two addresses of one family", hint="an endpoint's IPAM gives them")
    total = Pings()
    for source, target in ways:
        found = await pod.ping(target, source=source, count=count, timeout=timeout)
        total.sent += found.sent
        total.times += found.times
    return total
