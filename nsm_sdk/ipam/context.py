# SPDX-License-Identifier: Apache-2.0
"""The addresses and routes of a connection's IP context.

Does:  puts an address in with the route that leads to it, and takes addresses out together with their routes. The
       client's end is "src", the endpoint's "dst"; the way to a src address is a dst route, and the other way round.
Place: below the elements of this room.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from nsm_sdk.api import IPContext
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.ipam.addresses import Interface, parse_interface

Side = Literal["src", "dst"]


def put_address(context: IPContext, side: Side, text: str) -> None:
    """Add an address to one side, unless it is there."""
    addresses = context.src_ip_addrs if side == "src" else context.dst_ip_addrs
    if text not in addresses:
        addresses.append(text)


def put_route(context: IPContext, side: Side, prefix: str) -> None:
    """Add a route to the other side's address `prefix`, without a next hop, unless there is one."""
    routes = context.dst_routes if side == "src" else context.src_routes
    if all(route.prefix != prefix for route in routes):
        routes.add(prefix=prefix)


def has_only(context: IPContext, side: Side, text: str) -> bool:
    """Whether `text` is all that one side has, as with every refresh of a plain connection."""
    addresses = context.src_ip_addrs if side == "src" else context.dst_ip_addrs
    return len(addresses) == 1 and addresses[0] == text


def keep_addresses(context: IPContext, side: Side, keep: Callable[[Interface], bool]) -> None:
    """Take out every address of one side that `keep` does not want or that cannot be read, and the routes to it."""
    addresses = context.src_ip_addrs if side == "src" else context.dst_ip_addrs
    gone = {text for text in addresses if not _wanted(text, keep)}
    if not gone:
        return
    kept = [text for text in addresses if text not in gone]
    del addresses[:]
    addresses.extend(kept)
    routes = context.dst_routes if side == "src" else context.src_routes
    targets = {_comparable(text) for text in gone}
    for index in range(len(routes) - 1, -1, -1):
        if _comparable(routes[index].prefix) in targets:
            del routes[index]


def readable_interface(text: str) -> Interface | None:
    """The address, or None where it cannot be read."""
    try:
        return parse_interface(text)
    except InvalidRequest:
        return None


def _wanted(text: str, keep: Callable[[Interface], bool]) -> bool:
    found = readable_interface(text)
    return found is not None and keep(found)


def _comparable(text: str) -> Interface | str:
    """The same address may be written in several ways."""
    return readable_interface(text) or text
