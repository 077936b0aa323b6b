# SPDX-License-Identifier: Apache-2.0
"""Element that keeps the connections of one client out of each other's addresses.

Does:  tells each endpoint which prefixes the client's other connections use, learns what each connection got, and
       refuses an answer that gives an address in use. What it added last time it takes out of a refresh, so the list
       does not grow for ever. Connections of one awareness group may overlap.
Place: in a client's chain, below `Begin`.
State: what each connection uses, in its slot and in one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nsm_sdk.api import Connection, IPContext, Request
from nsm_sdk.api.urls import ServiceUrl
from nsm_sdk.core import Call, Element, Next, Runtime, Service, Slot
from nsm_sdk.errors import FailedPrecondition, InvalidRequest
from nsm_sdk.ipam.addresses import Network, parse_address, readable_networks


@dataclass(slots=True, eq=False)
class _Use:
    """What one connection uses."""

    group: int | None
    prefixes: tuple[str, ...] = ()
    added: frozenset[str] = frozenset()
    """What we put into its last request."""
    established: bool = False


class _Table(Service):
    """All uses, in the order of their connections."""

    def __init__(self) -> None:
        self.uses: dict[_Use, None] = {}

    async def start(self, runtime: Runtime) -> None:
        self.uses.clear()

    def others(self, use: _Use) -> list[str]:
        """Prefixes of the connections that `use` must not meet: those of no group first."""
        strangers = [
            other for other in self.uses if other is not use and (other.group is None or other.group != use.group)
        ]
        strangers.sort(key=lambda other: -1 if other.group is None else other.group)
        return [prefix for other in strangers for prefix in other.prefixes]


class ExcludedPrefixes(Element):
    """Excludes what the client's other connections use. FailedPrecondition for an address that is in use."""

    def __init__(self, awareness_groups: Iterable[Sequence[ServiceUrl | str]] = ()) -> None:
        """Services of one group know of each other and may overlap. InvalidRequest for a URL that cannot be read."""
        self.awareness_groups = [
            [ServiceUrl.parse(url) if isinstance(url, str) else url for url in group] for group in awareness_groups
        ]
        self._table = _Table()
        self._use = Slot[_Use]("prefixes in use")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        context = request.connection.context.ip_context
        use = self._use.get(call) or self._use.set(call, _Use(self._group(request)))
        self._table.uses.setdefault(use)
        given = [prefix for prefix in context.excluded_prefixes if prefix not in use.added]
        own = {*context.src_ip_addrs, *context.dst_ip_addrs, *use.prefixes}
        added = [prefix for prefix in self._table.others(use) if prefix not in own]
        use.added = frozenset(added).difference(given)
        _replace(context, dict.fromkeys([*given, *added]))
        excluded = readable_networks(context.excluded_prefixes)
        try:
            conn = await next.request(call, request)
        except BaseException:
            _replace(context, given)
            raise
        self._check(call, use, conn.context.ip_context, excluded)
        use.prefixes = tuple(_learn(conn.context.ip_context, use))
        use.established = True
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        try:
            await next.close(call, conn)
        finally:
            use = self._use.pop(call)
            if use is not None:
                self._table.uses.pop(use, None)

    def _group(self, request: Request) -> int | None:
        if not self.awareness_groups:
            return None
        try:
            url = ServiceUrl.of(request)
        except InvalidRequest:
            return None
        return next((index for index, group in enumerate(self.awareness_groups) if url in group), None)

    def _check(self, call: Call, use: _Use, context: IPContext, excluded: Sequence[Network]) -> None:
        taken = {net.network_address for net in excluded if net.prefixlen == net.max_prefixlen}
        for text in (*context.src_ip_addrs, *context.dst_ip_addrs):
            address = parse_address(text)
            if address is not None and address in taken:
                # a first request is undone by Begin; an established one must go elsewhere
                if use.established:
                    call.events.reselect()
                raise FailedPrecondition(
                    f"IP {address} is excluded, but it was found in response IPs",
                    hint="another connection of this client uses it; give the endpoints prefixes that do not overlap, "
                    "or put the services into one awareness group",
                )


def _learn(context: IPContext, use: _Use) -> dict[str, None]:
    """What a connection uses: its addresses, host routes, and what the way down excluded, unless in a group."""
    routes = [route.prefix for route in (*context.src_routes, *context.dst_routes) if _is_host(route.prefix)]
    further = [] if use.group is not None else [item for item in context.excluded_prefixes if item not in use.added]
    return dict.fromkeys([*context.src_ip_addrs, *context.dst_ip_addrs, *routes, *further])


def _is_host(prefix: str) -> bool:
    return any(net.prefixlen == net.max_prefixlen for net in readable_networks([prefix]))


def _replace(context: IPContext, prefixes: Iterable[str]) -> None:
    del context.excluded_prefixes[:]
    context.excluded_prefixes.extend(prefixes)
