# SPDX-License-Identifier: Apache-2.0
"""A mesh on one machine: the same scenario in one process, over namespaces, or as separate programs.

Does:  `async with Cluster(mode) as cluster` gives nodes, pods, clients and endpoints, pings, counts, crashes.

           async with Cluster(NAMESPACES) as cluster:
               node = await cluster.node("node-1")
               nse = await node.endpoint("nse-1", service="icmp-responder", prefix="172.16.0.0/24")
               nsc = await node.client("nsc-1")
               conn = await nsc.request("kernel://icmp-responder/nsm-1")
               assert (await nsc.ping(conn)).ok
               await nsc.close(conn)

Place: `nsm demo`, examples, tests of a whole mesh.
State: that of a cluster.
"""

from nsm_sdk.lab.cluster import Cluster
from nsm_sdk.lab.counts import Counts
from nsm_sdk.lab.ground import Way
from nsm_sdk.lab.hop import Hop, ServedHop
from nsm_sdk.lab.mode import (
    INPROC,
    MEMORY,
    NAMESPACES,
    PROGRAMS,
    PROGRAMS_SIMULATED,
    PROGRAMS_TCP,
    TCP,
    UNIX,
    Ground,
    Mode,
    Transport,
)
from nsm_sdk.lab.node import Node
from nsm_sdk.lab.pod import Pings, Pod
from nsm_sdk.lab.program import ProgramHop
from nsm_sdk.lab.workload import LabClient, LabEndpoint

__all__ = [
    "INPROC",
    "MEMORY",
    "NAMESPACES",
    "PROGRAMS",
    "PROGRAMS_SIMULATED",
    "PROGRAMS_TCP",
    "TCP",
    "UNIX",
    "Cluster",
    "Counts",
    "Ground",
    "Hop",
    "LabClient",
    "LabEndpoint",
    "Mode",
    "Node",
    "Pings",
    "Pod",
    "ProgramHop",
    "ServedHop",
    "Transport",
    "Way",
]
