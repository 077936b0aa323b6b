# SPDX-License-Identifier: Apache-2.0
"""What a connection keeps when it moves to another endpoint.

Does:  tells what the application requires from what endpoints have given. Selecting anew keeps the requirements and
       offers the last addresses (an endpoint that knows them gives them again), but neither payload nor labels nor
       anything else of the context that the old endpoint, or the hops before it, have given. Addresses that a new
       endpoint only echoes beside its own are found, so that they can be taken off.
Place: used by `Heal`.
State: one `Given` per connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from nsm_sdk.api import Connection, ConnectionContext, Request, State
from nsm_sdk.elements.merge import only_wishes, wish_again, wishes

Key: TypeAlias = tuple[str, bytes]
"""(list, serialised item)"""
Edit: TypeAlias = Callable[[Request], None]

_LISTS = ("src_routes", "dst_routes", "policies", "ip_neighbors", "extra_prefixes", "excluded_prefixes")
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
    """What endpoints have given to one connection, beyond what the application asked for."""

    __slots__ = ("_asked", "_given", "_wanted", "endpoint")

    def __init__(self) -> None:
        self._given: set[Key] = set()
        self._wanted: frozenset[Key] = frozenset()
        self._asked = b""
        self.endpoint = ""
        """Who gave the latest answer."""

    def asked(self, request: Request, before: Connection | None = None, found: Connection | None = None) -> None:
        """A request of the application goes out: what it changes of `before`, the connection as it was, is a
        requirement; without `before` all of it is.

        With `found` it takes up what an earlier run has left: `found` is what the application asks for, and all else
        was given.
        """
        conn = request.connection
        if found is not None:
            self._given.update(set(_keys(conn.context)).difference(_keys(found.context)))
            wanted = wishes(found)
        elif before is None or not self.endpoint:
            wanted = wishes(conn)
        else:
            wanted = wish_again(Connection.FromString(self._asked), before, conn)
        self._asked = wanted.SerializeToString()
        self._wanted = frozenset(_keys(wanted.context))

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
        ip, kept = request.connection.context.ip_context, Request()
        for name in () if addresses else _ADDRESSES:
            getattr(kept.connection.context.ip_context, name).extend(getattr(ip, name))
        only_wishes(request, Connection.FromString(self._asked))
        for name in () if addresses else _ADDRESSES:
            last = getattr(kept.connection.context.ip_context, name)
            if last:
                own, known = getattr(request.connection.context.ip_context, name), set(last)
                own[:] = [*last, *(one for one in own if one not in known)]

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


def add_wishes(conn: Connection, wanted: Connection) -> None:
    """Put into `conn` what the application wishes and it lacks."""
    context, wish = conn.context, wanted.context
    for name in (*_LISTS, *_ADDRESSES):
        _add(name, getattr(context.ip_context, name), getattr(wish.ip_context, name))
    _add("dns", context.dns_context.configs, wish.dns_context.configs)
    context.MTU = wish.MTU or context.MTU
    context.extra_context.update(wish.extra_context)
    conn.labels.update(wanted.labels)


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
