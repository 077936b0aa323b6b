# SPDX-License-Identifier: Apache-2.0
"""Addresses and prefixes as they stand in messages, and the IP context of a connection.

Does:  reads CIDR texts by the rules of the protocol's other implementations: a mask length must be there, host bits
       may be set, IPv4 written as `::ffff:a.b.c.d/96+n` is IPv4. Puts an address into an IP context with the route that
       leads to it, and takes addresses out together with their routes. The client's end is "src", the endpoint's
       "dst"; the way to a src address is a dst route, and the other way round.
Place: below pools and elements of this room.
State: a cache of texts read before; they come again with every refresh.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import Literal

from nsm_sdk.api import IPContext
from nsm_sdk.errors import InvalidRequest

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Side = Literal["src", "dst"]

LONGEST = 64  # no CIDR text is longer; keeps a peer's rubbish out of the cache and of error texts
_MAPPED = 0xFFFF << 32


def parse_interface(text: str) -> Interface:
    """The address with its mask, host bits kept: `10.0.0.7/24`. InvalidRequest where `text` is no CIDR."""
    found = _read(text) if len(text) <= LONGEST else None
    if found is None:
        shown = text[:LONGEST]
        raise InvalidRequest(
            f"failed to parse {shown} as CIDR: invalid CIDR address: {shown}",
            hint="write an address, a slash and the length of the mask, such as 172.16.0.0/16 or fd00::/64",
        )
    return found


def parse_network(text: str) -> Network:
    """The prefix `text`, host bits dropped. InvalidRequest where it is no CIDR."""
    return parse_interface(text).network


def parse_address(text: str) -> Address | None:
    """The address at the front of a CIDR, or a bare one; None where there is none."""
    if len(text) > LONGEST:
        return None
    found = _read(text)
    if found is not None:
        return found.ip
    try:
        return plain(ip_address(text)) if "%" not in text else None
    except ValueError:
        return None


def readable_networks(texts: Iterable[str]) -> list[Network]:
    """The prefixes among `texts`; what cannot be read is left out, since peers send what they like."""
    found = (_read(text) for text in texts if len(text) <= LONGEST)
    return [entry.network for entry in found if entry is not None]


def plain(address: Address) -> Address:
    """`address`, or the IPv4 address that it maps."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def host_network(address: Address) -> Network:
    """The prefix of one address: /32 or /128."""
    return IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)


def host_text(address: Address) -> str:
    """The same as a text; making the network first would take ten times as long."""
    return f"{address}/{address.max_prefixlen}"


def any_in(addresses: Iterable[Address], networks: Iterable[Network]) -> bool:
    """True where one of the addresses lies in one of the networks."""
    return any(address in network for network in networks for address in addresses)


def bounds(item: Address | Network) -> tuple[int, int]:
    """The first and the last number of an address or a prefix."""
    if isinstance(item, IPv4Network | IPv6Network):
        return int(item.network_address), int(item.broadcast_address)
    return int(item), int(item)


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


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> Interface | None:
    address, slash, length = text.partition("/")
    # the standard library would take a dotted mask, a missing one, and a scope
    if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
        return None
    try:
        found = ip_interface(f"{address}/{int(length)}")
    except ValueError:
        return None
    if isinstance(found, IPv6Interface) and found.ip.ipv4_mapped is not None and found.network.prefixlen >= 96:
        return IPv4Interface((int(found.ip) ^ _MAPPED, found.network.prefixlen - 96))
    return found
