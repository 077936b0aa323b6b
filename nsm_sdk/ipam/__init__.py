# SPDX-License-Identifier: Apache-2.0
"""Addresses for connections: pools, elements that hand them out, and the prefix service.

Does:  re-exports what the modules of this room define.
Place: endpoints (`ipam_chain`), clients (`ExcludedPrefixes`), managers (`ClusterPrefixes`), the IPAM service of a
       virtual layer 3 network (`manage_prefixes`).
"""

from __future__ import annotations

from nsm_sdk.ipam.addresses import Address, Interface, Network, parse_interface, parse_network
from nsm_sdk.ipam.excluded import ClusterPrefixes, ExcludedPrefixes, PrefixesFile
from nsm_sdk.ipam.groups import Policy, StrictIpam, broadcast_address, ipam_chain, network_address, parse_groups
from nsm_sdk.ipam.point_to_point import PointToPointIpam
from nsm_sdk.ipam.pools import DualPool, IpPool
from nsm_sdk.ipam.prefixes import ExtraPrefixes, PrefixPool, SubnetLease
from nsm_sdk.ipam.service import PrefixSupply, manage_prefixes
from nsm_sdk.ipam.single_point import SinglePointIpam

__all__ = [
    "Address",
    "ClusterPrefixes",
    "DualPool",
    "ExcludedPrefixes",
    "ExtraPrefixes",
    "Interface",
    "IpPool",
    "Network",
    "PointToPointIpam",
    "Policy",
    "PrefixPool",
    "PrefixSupply",
    "PrefixesFile",
    "SinglePointIpam",
    "StrictIpam",
    "SubnetLease",
    "broadcast_address",
    "ipam_chain",
    "manage_prefixes",
    "network_address",
    "parse_groups",
    "parse_interface",
    "parse_network",
]
