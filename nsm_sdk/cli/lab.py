# SPDX-License-Identifier: Apache-2.0
"""`nsm lab`: a mesh on this machine to try things with.

Does:  starts registry, manager, forwarder, endpoints and clients, each workload in a network namespace of its own,
       connects every client, says how to get in, and keeps it up until Ctrl-C; then nothing is left.
Place: behind `nsm_sdk.cli.app`.
State: none.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from rich.console import Console
from rich.table import Table

from nsm_sdk.cli.demo import FAILED, run
from nsm_sdk.errors import NsmError
from nsm_sdk.lab.cluster import Cluster
from nsm_sdk.lab.mode import NAMESPACES, UNIX
from nsm_sdk.lab.scenarios.first import why_simulated

URL = "kernel://icmp-responder/nsm-1"


def keep(*, clients: int, endpoints: int, simulated: bool) -> int:
    """Keep a mesh up until Ctrl-C; returns the exit status."""
    return run(_keep(Console(highlight=False, soft_wrap=True), clients, endpoints, simulated=simulated))


async def _keep(console: Console, clients: int, endpoints: int, *, simulated: bool) -> int:
    reason = "as asked for" if simulated else await why_simulated()
    if reason:
        console.print(f"No interfaces, because {reason}.")
    try:
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(Cluster(UNIX if reason else NAMESPACES))
            table = await _build(cluster, endpoints, clients)
            console.print(table)
            console.print("Get into a namespace with: ip netns exec NAMESPACE bash" if not reason else "")
            console.print("Ctrl-C ends it and leaves nothing.")
            await asyncio.Event().wait()
    except NsmError as error:
        console.print(f"failed: {error}", style="red")
        return FAILED
    return 0


async def _build(cluster: Cluster, endpoints: int, clients: int) -> Table:
    node = await cluster.node()
    table = Table(title=f"manager at {node.manager.url}")
    for title in ("workload", "namespace", "interface", "address", "peer"):
        table.add_column(title, no_wrap=True)
    for number in range(1, endpoints + 1):
        endpoint = await node.endpoint(f"nse-{number}", prefix=f"172.16.{number}.0/24")
        table.add_row(endpoint.name, _namespace(endpoint.pod.url), "", f"172.16.{number}.0/24", "")
    for number in range(1, clients + 1):
        client = await node.client(f"nsc-{number}")
        conn = await client.request(URL)
        context = conn.context.ip_context
        table.add_row(
            client.name,
            _namespace(client.pod.url),
            conn.mechanism.parameters.get("name", ""),
            ", ".join(context.src_ip_addrs),
            f"{', '.join(context.dst_ip_addrs)} ({conn.network_service_endpoint_name})",
        )
    return table


def _namespace(url: str) -> str:
    return url.removeprefix("file:///run/netns/")
