# SPDX-License-Identifier: Apache-2.0
"""Event lines of connections and registrations.

Does:  `Report` tells when a connection of this hop is connected, refreshed, moved, closed, or fails; `ReportRegistry`
       the same of registrations, `ReportOwn` of a program's own, which may be lost by others.
Place: below `Begin`, so that what the hop does by itself is told, too.
State: `Report`: what was told last of a connection, in a slot. The others: the names that stand.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint, Request, names
from nsm_sdk.core import Call, Cause, E, Element, Found, Kind, Next, Query, RegistryElement, RegistryNext, Slot
from nsm_sdk.elements import Begin
from nsm_sdk.errors import NsmError
from nsm_sdk.registry import RegistryBegin


class Teller(Protocol):
    """Where events go."""

    def emit(self, event: str, **fields: Any) -> None:
        """Print one event."""

    def error(self, error: NsmError, *, id: str = "", **fields: Any) -> None:
        """Print an error."""


def facts(conn: Connection) -> dict[str, Any]:
    """What the event lines and the admin socket say of a connection."""
    context = conn.context.ip_context
    return {
        "id": conn.id,
        "service": conn.network_service,
        "endpoint": conn.network_service_endpoint_name,
        "mechanism": conn.mechanism.type,
        "interface": conn.mechanism.parameters.get("name") or "",
        "src": list(context.src_ip_addrs),
        "dst": list(context.dst_ip_addrs),
        "path": list(names(conn)),
    }


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


class Report(Element):
    """Tell `teller`. `first_errors`: also of first requests that fail; whoever makes them itself tells of those.

    `heals`: whether somebody heals the connection of that id at the moment, and will tell of it.
    """

    needs = (Begin,)
    unique = True

    def __init__(
        self, teller: Teller, *, first_errors: bool = True, heals: Callable[[str], bool] | None = None
    ) -> None:
        self._teller = teller
        self._first_errors = first_errors
        self._heals = heals
        self._told: Slot[dict[str, Any]] = Slot("reported connection")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        began = time.perf_counter()
        conn_id = request.connection.id
        before = self._told.get(call)
        healing = self._heals is not None and self._heals(conn_id)
        try:
            conn = await next.request(call, request)
        except Exception as error:
            if before is not None or self._first_errors:
                self._teller.error(call.runtime.explain(error), id=conn_id, service=request.connection.network_service)
            raise
        now = self._told.set(call, facts(conn))
        if before is None:
            self._teller.emit("connected", **now, ms=_ms(began))
        elif healing:
            pass  # whoever heals tells of it
        elif call.cause is Cause.RESELECT:
            self._teller.emit("healed", **now, moved=now["endpoint"] != before["endpoint"], ms=_ms(began))
        else:
            self._teller.emit("refreshed", **now, ms=_ms(began))
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if call.cause is Cause.RESELECT:
            await next.close(call, conn)
            return
        began = time.perf_counter()
        told = self._told.pop(call)
        try:
            await next.close(call, conn)
        except Exception as error:
            self._teller.error(call.runtime.explain(error), id=conn.id, service=conn.network_service)
            raise
        finally:
            if told is not None:
                self._teller.emit("closed", **told, ms=_ms(began))


def _services(entry: NetworkService | NetworkServiceEndpoint) -> str:
    return ",".join(entry.network_service_names) if isinstance(entry, NetworkServiceEndpoint) else entry.name


def entry_facts(entry: NetworkService | NetworkServiceEndpoint) -> dict[str, Any]:
    """What the event lines and the admin socket say of a registration."""
    found: dict[str, Any] = {
        "id": entry.name,
        "service": _services(entry),
        "endpoint": "",
        "path": list(entry.path_ids),
    }
    if isinstance(entry, NetworkServiceEndpoint):
        found["endpoint"] = entry.name
        found["url"] = entry.url
        if entry.HasField("expiration_time"):
            found["expires"] = entry.expiration_time.seconds
    return found


class ReportRegistry(RegistryElement[E]):
    """Tell `teller` of registrations that pass here; a refresh is no news."""

    needs = (RegistryBegin,)
    unique = True

    def __init__(self, teller: Teller, kind: Kind[E]) -> None:
        self._teller = teller
        self._kind = kind
        self._standing: dict[str, str] = {}

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        began = time.perf_counter()
        name, services = entry.name, _services(entry)
        try:
            registered = await next.register(call, entry)
        except Exception as error:
            self._lost(name)
            self._teller.error(call.runtime.explain(error), id=name, service=services)
            raise
        if self._standing.get(name) != services:
            self._standing[name] = services
            self._teller.emit("registered", **entry_facts(registered), ms=_ms(began))
        return registered

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        began = time.perf_counter()
        stood = self._standing.pop(entry.name, None)
        try:
            await next.unregister(call, entry)
        finally:
            if stood is not None:
                self._teller.emit("closed", id=entry.name, service=stood, ms=_ms(began))

    def _lost(self, name: str) -> None:
        """A registration could not be refreshed; it may stand until it expires."""


class ReportOwn(ReportRegistry[E]):
    """The same for what this program registers itself: it also tells when that stands again after it was lost."""

    async def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        try:
            async with aclosing(next.find(call, query)) as stream:
                async for found in stream:
                    if found.deleted:
                        self._lost(found.entry.name)
                    yield found
        finally:
            # The stream of `Heal` above has ended: what it watched has to be registered again.
            if query.watch:
                self._lost(query.entry.name)

    def _lost(self, name: str) -> None:
        self._standing.pop(name, None)
