# SPDX-License-Identifier: Apache-2.0
"""Netlink: what a kernel is asked to do, off the event loop; and a kernel in memory.

Does:  implements the ports of nsm_sdk.mechanisms (Netlink, Kernel, Namespace, LinkWatch); makes namespaces; finds out
       what this machine can build.
Place: an adapter; the only place that knows pyroute2 or speaks netlink.
State: none here.
"""

from nsm_sdk.netlink.fake import FakeNamespace, FakeNetlink
from nsm_sdk.netlink.kernel import KernelAdapter
from nsm_sdk.netlink.namespaces import (
    Resident,
    create_namespace,
    delete_namespace,
    list_namespaces,
    namespace_path,
    namespace_url,
    open_namespace,
    run_inside,
    temporary_namespace,
    unique_name,
)
from nsm_sdk.netlink.probe import Capabilities, Capability, probe, probe_now
from nsm_sdk.netlink.thread import NetlinkThread
from nsm_sdk.netlink.watch import LinkEvent, SocketWatch

__all__ = [
    "Capabilities",
    "Capability",
    "FakeNamespace",
    "FakeNetlink",
    "KernelAdapter",
    "LinkEvent",
    "NetlinkThread",
    "Resident",
    "SocketWatch",
    "create_namespace",
    "delete_namespace",
    "list_namespaces",
    "namespace_path",
    "namespace_url",
    "open_namespace",
    "probe",
    "probe_now",
    "run_inside",
    "temporary_namespace",
    "unique_name",
]
