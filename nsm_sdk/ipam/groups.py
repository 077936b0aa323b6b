# SPDX-License-Identifier: Apache-2.0
"""Groups of prefixes, and the two ends of one.

Does:  reads `[a, b], c`: the prefixes inside brackets are alternatives, every group gives each connection one
       allocation, so an IPv4 and an IPv6 group make it dual stack. Tells a prefix's network and broadcast address.
Place: used by programs (`NSM_CIDR_PREFIX`) and by `ipam_chain`.
State: none.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from nsm_sdk.errors import InvalidRequest
from nsm_sdk.ipam.addresses import Address, Network, parse_network

Groups = tuple[tuple[Network, ...], ...]


def parse_groups(text: str) -> Groups:
    """The groups of `[a, b], c`; spaces do not count, nothing gives no groups. InvalidRequest tells what is wrong."""
    bare = text.replace(" ", "")
    if not bare:
        return ()
    if len(bare) < 2:
        raise _bad(text, "value is too short")
    groups: list[tuple[Network, ...]] = []
    rest = bare
    while True:
        if rest.startswith("["):
            inner, closed, rest = rest[1:].partition("]")
            if not closed or "[" in inner:
                raise _bad(text, "brackets are not balanced")
            groups.append(tuple(_prefix(text, item) for item in inner.split(",")))
            if rest and not rest.startswith(","):
                raise _bad(
                    text, f"a comma is missing before {rest!r}" if rest[0] != "]" else "brackets are not balanced"
                )
        else:
            item, comma, after = rest.partition(",")
            groups.append((_prefix(text, item),))
            rest = comma + after
        if not rest:
            return tuple(groups)
        rest = rest[1:]
        if not rest:
            raise _bad(text, "it ends with a comma")


def network_address(network: Network) -> Address:
    """The first address of the prefix."""
    return network.network_address


def broadcast_address(network: Network) -> IPv4Address | None:
    """The last address of an IPv4 prefix; None for IPv6, which has no broadcast."""
    return network.broadcast_address if isinstance(network, IPv4Network) else None


def _prefix(text: str, item: str) -> Network:
    if not item:
        raise _bad(text, "a prefix is empty")
    if "[" in item or "]" in item:
        raise _bad(text, "brackets are not balanced")
    try:
        return parse_network(item)
    except InvalidRequest as error:
        raise _bad(text, error.message) from error


def _bad(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot read the prefix groups {text[:200]!r}: {why}",
        hint="write prefixes, and alternatives in brackets, with commas: [172.16.0.0/16, 172.17.0.0/16], fd00::/64",
    )
