# SPDX-License-Identifier: Apache-2.0
"""What a connection's context keeps when it moves to another endpoint.

Does:  tells what the application requires from what endpoints have given. Selecting anew keeps the requirements and
       offers the last addresses (an endpoint that knows them gives them again), but no routes, policies, neighbours or
       name servers of the old endpoint. Addresses that a new endpoint only echoes beside its own are found, so that
       they can be taken off.
Place: used by `Heal`.
State: one `Given` per connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from nsm_sdk.api import Connection, ConnectionContext, Request, State

Key: TypeAlias = tuple[str, bytes]
"""(list, serialised item)"""
Edit: TypeAlias = Callable[[Request], None]

_LISTS = ("src_routes", "dst_routes", "policies", "ip_neighbors", "extra_prefixes")
_ADDRESSES = ("src_ip_addrs", "dst_ip_addrs")


def select_anew(request: Request) -> None:
    """The usual edit: any endpoint, any mechanism; the hops below are told to let go of the old one."""
    request.connection.ClearField("mechanism")
    request.connection.network_service_endpoint_name = ""
    request.connection.state = State.RESELECT_REQUESTED


def same_endpoint(request: Request) -> None:
    """Build everything anew, but at the same endpoint: for those who mean this one and no other (vL3 peers)."""
    request.connection.ClearField("mechanism")
    request.connection.state = State.RESELECT_REQUESTED


class Given:
    """What endpoints have put into one connection's context, beyond what the application asked for."""

    __slots__ = ("_given", "_mtu", "_wanted", "endpoint")

    def __init__(self) -> None:
        self._given: set[Key] = set()
        self._wanted: frozenset[Key] = frozenset()
        self._mtu = 0
        self.endpoint = ""
        """Who gave the latest answer."""

    def asked(self, request: Request, wishes: ConnectionContext | None = None) -> None:
        """A request of the application goes out: what it holds and nobody has given is a requirement.

        With `wishes` it takes up what an earlier run has left: these are the requirements, and all else was given.
        """
        context = request.connection.context
        if wishes is not None:
            self._given.update(set(_keys(context)).difference(_keys(wishes)))
        self._wanted = frozenset(key for key in _keys(context) if key not in self._given)
        if not self.endpoint:
            self._mtu = (context if wishes is None else wishes).MTU

    def answered(self, conn: Connection, *, anew: bool) -> bool:
        """An answer has come. True when, selected `anew`, it has addresses of a former endpoint beside present ones."""
        keys = set(_keys(conn.context))
        self.endpoint = conn.network_service_endpoint_name
        fresh = keys - self._given - self._wanted
        stale = {key for key in keys & self._given if key[0] in _ADDRESSES}
        self._given = keys - self._wanted
        piled = anew and any(_alike(old, new) for old in stale for new in fresh)
        if piled:
            # The next request leaves them out; the endpoint's own stay.
            self._given = {key for key in self._given if key in fresh}
        return piled

    def strip(self, request: Request, *, addresses: bool) -> None:
        """Take out what is no requirement; addresses only when asked to."""
        context = request.connection.context
        if not request.connection.HasField("context"):
            return
        for name in (*_LISTS, *(_ADDRESSES if addresses else ())):
            _keep(name, getattr(context.ip_context, name), self._wanted)
        _keep("dns", context.dns_context.configs, self._wanted)
        context.MTU = self._mtu

    def tidied(self, conn: Connection) -> Connection:
        """A copy as it will be after `tidy`."""
        request = Request(connection=conn)
        self.tidy(request)
        return request.connection

    def tidy(self, request: Request) -> None:
        """Take out addresses, and all else, that neither the application nor the present endpoint has given."""
        context = request.connection.context
        keep = self._wanted | self._given
        for name in (*_LISTS, *_ADDRESSES):
            _keep(name, getattr(context.ip_context, name), keep)


def add_wishes(context: ConnectionContext, wishes: ConnectionContext) -> None:
    """Put into `context` what the application wishes and it lacks."""
    for name in (*_LISTS, *_ADDRESSES, "excluded_prefixes"):
        _add(name, getattr(context.ip_context, name), getattr(wishes.ip_context, name))
    _add("dns", context.dns_context.configs, wishes.dns_context.configs)
    context.MTU = wishes.MTU or context.MTU
    context.extra_context.update(wishes.extra_context)


def _add(name: str, items: Any, wished: Any) -> None:
    have = {_key(name, item) for item in items}
    items.extend(item for item in wished if _key(name, item) not in have)


def _keep(name: str, items: Any, keep: frozenset[Key] | set[Key]) -> None:
    kept = [item for item in items if _key(name, item) in keep]
    if len(kept) != len(items):
        del items[:]
        items.extend(kept)


def _key(name: str, item: Any) -> Key:
    return name, item.encode() if isinstance(item, str) else item.SerializeToString(deterministic=True)


def _keys(context: ConnectionContext) -> list[Key]:
    found = [_key(name, item) for name in (*_LISTS, *_ADDRESSES) for item in getattr(context.ip_context, name)]
    return found + [_key("dns", item) for item in context.dns_context.configs]


def _alike(old: Key, new: Key) -> bool:
    """Whether both are addresses of the same side and family."""
    return old[0] == new[0] and (b":" in old[1]) == (b":" in new[1])
