# SPDX-License-Identifier: Apache-2.0
"""`nsm doctor`.

Does:  tries what a forwarder would have to build, and says for each thing whether it works, and why not.
Place: a command.
State: none; nothing is left behind.
"""

from __future__ import annotations

import json
import platform

MEANINGS = {
    "namespaces": "network namespaces",
    "veth": "kernel interfaces between namespaces",
    "bridge": "bridges",
    "vxlan": "tunnels to other nodes (VXLAN)",
    "macvlan": "interfaces on a network of the host",
    "tun": "tunnels by programs (TUN/TAP)",
    "wireguard": "encrypted tunnels (WireGuard)",
    "vlan": "tagged interfaces (802.1Q)",
    "ipvlan": "interfaces that share the host's MAC address",
    "dummy": "dummy interfaces",
    "vrf": "separate routing domains",
    "nftables": "packet filters",
    "policy": "policy routing",
    "icmp": "pings through raw sockets",
    "ping-group": "pings without privileges",
    "ipv6": "IPv6",
}


def report(*, as_json: bool = False) -> int:
    """Print what works; answers 0 if a forwarder with the kernel datapath can run here, else 1."""
    from nsm_sdk.netlink import probe_now

    found = probe_now()
    mechanisms = found.mechanisms
    if as_json:
        items = [{"name": one.name, "works": one.works, "reason": one.reason} for one in found.found]
        print(json.dumps({"kernel": platform.release(), "mechanisms": list(mechanisms), "found": items}))
        return 0 if mechanisms else 1
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Linux {platform.release()}, Python {platform.python_version()}")
    table.add_column("what")
    table.add_column("works")
    table.add_column("for")
    table.add_column("why not")
    for one in found.found:
        works = "[green]yes[/]" if one.works else "[red]no[/]"
        table.add_row(one.name, works, MEANINGS.get(one.name, ""), one.reason)
    console = Console()
    console.print(table)
    if mechanisms:
        console.print(f"A forwarder here can build: {', '.join(mechanisms)}.")
        return 0
    console.print("A forwarder here can build no interfaces; run it with NSM_DATAPATH=simulated.")
    return 1
