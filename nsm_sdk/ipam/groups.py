# SPDX-License-Identifier: Apache-2.0
"""Groups of prefixes, and the two ends of one.

Does:  reads `[a, b], c`: the prefixes inside brackets are alternatives, every group gives each connection one
       allocation, so an IPv4 and an IPv6 group make it dual stack. Tells a prefix's network and broadcast address.
Place: used by programs (`NSM_CIDR_PREFIX`) and with `ipam_chain`.
State: none.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from nsm_sdk.api.groups import prefix_groups
from nsm_sdk.ipam.addresses import Address, Network, parse_network

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
