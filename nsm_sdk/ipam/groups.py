# SPDX-License-Identifier: Apache-2.0
"""IPAM of an endpoint as one piece: groups of prefixes, and what to do with addresses from elsewhere.

Does:  reads `[a, b], c`: the prefixes inside brackets are alternatives, every group gives each connection one
       allocation, so an IPv4 and an IPv6 group make it dual stack. `ipam_chain` puts one IPAM element for each group in
       a row. Polite: addresses that a client brings from another endpoint stay beside the new ones. Strict: they are
       taken out first, so that a healed client ends up with the addresses of this endpoint only.
Place: programs (`NSM_CIDR_PREFIX`); in an endpoint's chain, above the mechanisms.
State: that of the elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.groups import prefix_groups
from nsm_sdk.core import Call, Chain, Element, Next
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.ipam.addresses import Address, Interface, Network, any_in, keep_addresses, parse_network
from nsm_sdk.ipam.point_to_point import PointToPointIpam

Groups = tuple[tuple[Network, ...], ...]


def parse_groups(text: str) -> Groups:
    """The groups of `[a, b], c`; spaces do not count, nothing gives no groups. InvalidRequest tells what is wrong."""
    # once more through our own reader: a mapped prefix is IPv4 in this room
    return tuple(tuple(parse_network(str(net)) for net in group) for group in prefix_groups(text))


def network_address(network: Network) -> Address:
    """The first address of the prefix."""
    return network.network_address


def broadcast_address(network: Network) -> IPv4Address | None:
    """The last address of an IPv4 prefix; None for IPv6, which has no broadcast."""
    return network.broadcast_address if isinstance(network, IPv4Network) else None


class Policy(StrEnum):
    """What happens to addresses that are not of this endpoint's prefixes."""

    POLITE = "polite"
    STRICT = "strict"

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy of that name, in any case. InvalidRequest where there is none."""
        try:
            return cls(text.lower())
        except ValueError:
            raise InvalidRequest(f"{text[:64]!r} is no IPAM policy", hint=f"use one of: {', '.join(cls)}") from None


class StrictIpam(Element):
    """Takes out every address that is not of `prefixes`, with the route to it; stands above the IPAM elements."""

    def __init__(self, *prefixes: str | Network) -> None:
        """InvalidRequest where a prefix cannot be read."""
        self._networks = [parse_network(prefix) if isinstance(prefix, str) else prefix for prefix in prefixes]
        self.prefixes = tuple(map(str, self._networks))

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        context = request.connection.context.ip_context
        keep_addresses(context, "src", self._ours)
        keep_addresses(context, "dst", self._ours)
        return await next.request(call, request)

    def _ours(self, found: Interface) -> bool:
        return any_in((found.ip,), self._networks)


def ipam_chain(
    groups: Iterable[Sequence[str | Network]],
    *,
    policy: Policy | str = Policy.POLITE,
    make: Callable[..., Element] = PointToPointIpam,
) -> Chain[Next]:
    """A chain named "ipam": every connection gets one allocation of each group; inside a group prefixes are
    alternatives. `make` is called with the prefixes of a group. No groups give a chain that does nothing.

    InvalidRequest where a prefix cannot be read, a group is empty, or two groups overlap.
    """
    read = [[parse_network(item) if isinstance(item, str) else item for item in group] for group in groups]
    for left, right in combinations(read, 2):
        for one in left:
            if any(one.overlaps(other) for other in right):
                raise InvalidRequest(
                    f"prefix {one} overlaps another group: an address would be given twice",
                    hint="put prefixes that overlap into one group",
                )
    elements = [make(*group) for group in read]
    if Policy.parse(policy) is Policy.STRICT and read:
        elements.insert(0, StrictIpam(*(net for group in read for net in group)))
    return Chain("ipam", *elements)
