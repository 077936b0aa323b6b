# SPDX-License-Identifier: Apache-2.0
"""Elements that exclude prefixes: those of a client's other connections, and those of the cluster.

Does:  `ExcludedPrefixes` tells each endpoint which prefixes the client's other connections use, learns what each
       connection got, and refuses an answer that gives an address in use. What it added last time it takes out of a
       refresh, so the list does not grow for ever. Connections of one awareness group may overlap. `ClusterPrefixes`
       adds the prefixes of a file (`prefixes:` and a list, in YAML or JSON). The file is looked at with every request
       and read when it has changed; without it nothing is excluded; one that cannot be understood is reported, and what
       was read before stays.
Place: the first in a client's chain, below `Begin`; the second in a manager's chain.
State: what each connection uses, in its slot and in one table; the file's prefixes, and how the file looked when they
       were read.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsm_sdk.api import Connection, IPContext, Request
from nsm_sdk.api.urls import ServiceUrl
from nsm_sdk.core import Call, Element, Next, Runtime, Service, Slot
from nsm_sdk.errors import FailedPrecondition, InvalidRequest
from nsm_sdk.ipam.addresses import Network, parse_address, parse_network, readable_networks
from nsm_sdk.ipam.pools import DualPool

logger = logging.getLogger("nsm_sdk.ipam")

DEFAULT_FILE = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml"


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


class ClusterPrefixes(Element):
    """Excludes the prefixes that `source` names at the time of the request."""

    def __init__(self, source: Callable[[], Sequence[str]]) -> None:
        """`source` answers CIDR texts; a `PrefixesFile` is one."""
        self.source = source

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        excluded = request.connection.context.ip_context.excluded_prefixes
        wanted = list(dict.fromkeys([*excluded, *self.source()]))
        del excluded[:]
        excluded.extend(wanted)
        return await next.request(call, request)


class PrefixesFile:
    """Prefixes of a file, merged and ascending, IPv4 first."""

    def __init__(self, path: str | Path = DEFAULT_FILE) -> None:
        self.path = Path(path)
        self._looked: tuple[int, int, int] | None = None
        self._prefixes: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        try:
            found = os.stat(self.path)
            looks = (found.st_mtime_ns, found.st_ino, found.st_size)
            if looks != self._looked:
                text = self.path.read_text()
                self._looked = looks
                self._prefixes = merged(parse_prefixes(text))
        except FileNotFoundError:
            self._looked = None
            self._prefixes = ()
        except (OSError, UnicodeDecodeError, InvalidRequest) as error:
            logger.warning("excluded prefixes: %s: %s; what was read before stays", self.path, error)
        return self._prefixes

    def __repr__(self) -> str:
        return f"PrefixesFile({str(self.path)!r})"


def merged(prefixes: Sequence[str]) -> tuple[str, ...]:
    """The same addresses as the fewest prefixes, ascending, IPv4 first. InvalidRequest where one cannot be read."""
    return tuple(map(str, DualPool(*prefixes).prefixes()))


def parse_prefixes(text: str) -> list[str]:
    """The list under `prefixes`, in JSON or in plain YAML. InvalidRequest where the text is anything else."""
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InvalidRequest(f"it is not JSON: {error}") from None
        items = found.get("prefixes") or []
        if not isinstance(items, list):
            raise InvalidRequest("`prefixes` is not a list")
        return [_item(item) for item in items]
    items = []
    inside = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].rstrip()
        if not line or line == "---":
            continue
        if line.startswith("prefixes:"):
            inside = True
            rest = line.removeprefix("prefixes:").strip()
            if rest.startswith("[") and rest.endswith("]"):
                items.extend(_item(item) for item in rest[1:-1].split(",") if item.strip())
            elif rest not in {"", "null", "~"}:
                raise InvalidRequest(f"line {number}: a list is expected after `prefixes:`")
        elif inside and line.lstrip().startswith("- "):
            items.append(_item(line.lstrip()[2:]))
        elif line[0].isspace() or line.startswith("-"):
            if inside:
                raise InvalidRequest(f"line {number}: a prefix is expected, such as `- 10.0.0.0/8`")
        elif ":" in line:
            inside = False
        else:
            raise InvalidRequest(f"line {number}: `prefixes:` and a list are expected")
    return items


def _item(item: object) -> str:
    text = str(item).strip().strip("\"'")
    parse_network(text)
    return text
