# SPDX-License-Identifier: Apache-2.0
"""Clients and endpoints of the lab.

Does:  `LabClient` requests, refreshes, closes and pings by hand: every call is one call, nothing is tried again.
       `LabEndpoint` gives addresses; it runs here, or as a program.
Place: made by `Node.client` and `Node.endpoint`.
State: the hop; a counter of connections.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from nsm_sdk.api import Connection, Request, ServiceUrl
from nsm_sdk.core import Call, Next
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.lab.hop import Hop, ServedHop
from nsm_sdk.lab.pod import Pings, Pod, pairs

T = TypeVar("T")
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
        """Ask for a connection to the service `url`, once; the error of whoever refused it.

        `id`: default `<name>-<number>`; `endpoint`: a particular one; `edit` may change the request before it leaves.
        """
        wanted = ServiceUrl.parse(url) if isinstance(url, str) else url
        request = Request(mechanism_preferences=[wanted.mechanism()])
        conn = request.connection
        conn.id = id or f"{self.name}-{next(self._numbers)}"
        conn.network_service = wanted.service
        conn.network_service_endpoint_name = endpoint
        conn.labels.update({**(labels or {}), **wanted.labels})
        if edit is not None:
            edit(request)
        return await self._call(lambda call, down: down.request(call, request), timeout, "request")

    async def refresh(self, conn: Connection, *, timeout: float = TIMEOUT) -> Connection:
        """Request the same connection again; answers it as it is now."""
        request = Request()
        request.connection.CopyFrom(conn)
        return await self._call(lambda call, down: down.request(call, request), timeout, "request")

    async def close(self, conn: Connection, *, timeout: float = TIMEOUT) -> None:
        """Close; may be repeated."""
        closing = Connection()
        closing.CopyFrom(conn)
        await self._call(lambda call, down: down.close(call, closing), timeout, "close")

    async def ping(self, conn: Connection, *, count: int = 1, timeout: float = 1.0) -> Pings:
        """Ping the endpoint of `conn` over every pair of addresses of one family, `count` times each."""
        ip = conn.context.ip_context
        return await _ping_all(self.pod, pairs(ip.src_ip_addrs, ip.dst_ip_addrs), count, timeout)

    async def _call(self, run: Callable[[Call, Next], Coroutine[Any, Any, T]], timeout: float, what: str) -> T:
        running = self.served.running
        down = running.bound.connection
        assert down is not None
        return await running.runtime.serve(
            lambda deadline: run(Call(running.runtime, deadline=deadline), down), timeout, what
        )


async def _ping_all(pod: Pod, ways: list[tuple[str, str]], count: int, timeout: float) -> Pings:
    if not ways:
        raise InvalidRequest("the connection has no two addresses of one family", hint="an endpoint's IPAM gives them")
    total = Pings()
    for source, target in ways:
        found = await pod.ping(target, source=source, count=count, timeout=timeout)
        total.sent += found.sent
        total.times += found.times
    return total
