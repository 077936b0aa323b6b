# SPDX-License-Identifier: Apache-2.0
"""Random contexts of a connection.

Does:  addresses with short and long prefixes, several of one network, routes, policies, neighbours, MTU, MACs, payload:
       few values of each, so that two of them often have something in common.
Place: the tests of the datapath, on a real kernel and on the one in memory.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from nsm_sdk.api import Connection, policy_route
from nsm_sdk.api import Route as RouteMessage

POLICIES = [
    policy_route(source="10.0.0.1/32", proto="6", dst_port="6666"),
    policy_route(source="fd00::1", proto="17", src_port="1-1024"),
    policy_route(dst_port="80", routes=[RouteMessage(prefix="10.9.0.0/16")]),
    policy_route(source="10.0.0.0/8"),
    policy_route(proto="6"),
]
CONTEXTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "src4": st.sampled_from(
            [
                [],
                ["10.0.0.1/32"],
                ["10.0.0.1/24"],
                ["10.0.0.1/24", "10.0.0.2/24"],
                ["10.0.0.2/24", "10.0.0.1/24"],
                ["10.0.0.2/24", "10.0.0.1/32"],
                ["10.0.0.3/32", "10.1.0.1/32"],
            ]
        ),
        "dst4": st.sampled_from(
            [[], ["10.0.0.9/32"], ["10.0.0.9/24"], ["10.0.0.8/32", "10.0.0.9/32"], ["10.0.0.8/24", "10.0.0.9/24"]]
        ),
        "src6": st.sampled_from(
            [[], ["fd00::1/128"], ["fd00::1/64"], ["fd00::2/64", "fd00::1/64"], ["fd00::2/64", "fd00::1/128"]]
        ),
        "dst6": st.sampled_from([[], ["fd00::9/128"], ["fd00::9/64"], ["fd00::8/128", "fd00::9/128"]]),
        "routes": st.lists(
            st.sampled_from(["10.7.0.0/16", "10.0.0.0/24", "0.0.0.0/0", "fd07::/32", "::/0", "fd00::/64"]),
            unique=True,
            max_size=3,
        ),
        "policies": st.lists(st.integers(0, len(POLICIES) - 1), unique=True, max_size=3),
        "neighbours": st.sampled_from([[], [("10.0.0.50", "02:00:00:00:00:50")], [("fd00::50", "02:00:00:00:00:51")]]),
        "mtu": st.sampled_from([0, 1280, 1400, 1500]),
        "macs": st.tuples(*[st.sampled_from(["", f"02:00:00:00:01:0{end}"]) for end in (1, 2)]),
        "payload": st.sampled_from(["IP", "ETHERNET"]),
    }
)
PLAIN: dict[str, Any] = {
    "src4": ["10.0.0.1/32"],
    "dst4": ["10.0.0.9/32"],
    "src6": ["fd00::1/128"],
    "dst6": ["fd00::9/128"],
    "routes": [],
    "policies": [],
    "neighbours": [],
    "mtu": 0,
    "macs": ("", ""),
    "payload": "IP",
}


def fill(conn: Connection, context: dict[str, Any]) -> None:
    """Gives `conn` that context instead of its addresses."""
    conn.payload = context["payload"]
    ip = conn.context.ip_context
    for key, field in (("src", ip.src_ip_addrs), ("dst", ip.dst_ip_addrs)):
        field[:] = context[f"{key}4"] + context[f"{key}6"]
    for prefix in context["routes"]:
        ip.src_routes.add(prefix=prefix)
    ip.policies.extend(POLICIES[at] for at in context["policies"])
    for text, mac in context["neighbours"]:
        ip.ip_neighbors.add(ip=text, hardware_address=mac)
    conn.context.MTU = context["mtu"]
    conn.context.ethernet_context.src_mac, conn.context.ethernet_context.dst_mac = context["macs"]
