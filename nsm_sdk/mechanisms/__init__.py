# SPDX-License-Identifier: Apache-2.0
"""Mechanisms: what carries a connection's packets, negotiated and built.

Does:  elements that ask for, choose and join mechanisms; the kernel datapath as desired state against observed
       state; the simulated one; the ports that adapters implement.
Place: beside the other rooms of elements; knows no netlink library.
State: none here.
"""

from nsm_sdk.mechanisms.cross_connect import CrossConnect, TranslateMechanism
from nsm_sdk.mechanisms.desired import Desired, apply, desired, diff
from nsm_sdk.mechanisms.join import Join
from nsm_sdk.mechanisms.kernel import KernelClient, KernelServer, own_namespace
from nsm_sdk.mechanisms.kernel_datapath import KernelDatapath
from nsm_sdk.mechanisms.ledger import Ledger, Record, RecordedEnd
from nsm_sdk.mechanisms.model import OURS, Address, Link, NamespaceId, Neighbour, Observed, Route, Rule
from nsm_sdk.mechanisms.nat import iptables_rules
from nsm_sdk.mechanisms.ports import Datapath, Joint, Kernel, LinkEvent, LinkWatch, Namespace, Netlink
from nsm_sdk.mechanisms.selection import MechanismPriority, Mechanisms
from nsm_sdk.mechanisms.simulated import SimulatedDatapath
from nsm_sdk.mechanisms.tags import CLIENT_SIDE, ENDPOINT_SIDE, Tag, parse_alias

__all__ = [
    "CLIENT_SIDE",
    "ENDPOINT_SIDE",
    "OURS",
    "Address",
    "CrossConnect",
    "Datapath",
    "Desired",
    "Join",
    "Joint",
    "Kernel",
    "KernelClient",
    "KernelDatapath",
    "KernelServer",
    "Ledger",
    "Link",
    "LinkEvent",
    "LinkWatch",
    "MechanismPriority",
    "Mechanisms",
    "Namespace",
    "NamespaceId",
    "Neighbour",
    "Netlink",
    "Observed",
    "Record",
    "RecordedEnd",
    "Route",
    "Rule",
    "SimulatedDatapath",
    "Tag",
    "TranslateMechanism",
    "apply",
    "desired",
    "diff",
    "iptables_rules",
    "own_namespace",
    "parse_alias",
]
