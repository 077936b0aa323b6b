# SPDX-License-Identifier: Apache-2.0
"""Two pods on one node, joined by a kernel interface in each: the first thing that everybody tries.

Needs root for real packets; without, a kernel in memory stands for the real one.
"""

import anyio

from nsm_sdk.lab import MEMORY, NAMESPACES, Cluster, Mode


async def main(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        nse = await node.endpoint("nse-1", service="icmp-responder", prefix="172.16.1.100/31")
        nsc = await node.client("nsc-1")

        conn = await nsc.request("kernel://icmp-responder/nsm-1")
        hops = [segment.name for segment in conn.path.path_segments]
        print("path:", " > ".join(hops))
        assert hops == ["nsc-1", node.manager.name, node.forwarder.name, "nse-1"]

        addresses = conn.context.ip_context
        print("addresses:", *addresses.src_ip_addrs, "and", *addresses.dst_ip_addrs)
        assert list(addresses.dst_ip_addrs) == ["172.16.1.100/32"], "the endpoint gets the first address"
        assert list(addresses.src_ip_addrs) == ["172.16.1.101/32"], "the client gets the next"

        there, back = await nsc.ping(conn, count=3), await nse.ping(conn, count=3)
        print(f"pings: {there.sent - there.lost} of {there.sent} there, {back.sent - back.lost} of {back.sent} back")
        assert there.ok
        assert back.ok
        assert [link.name for link in await nsc.pod.links()] == ["nsm-1"]

        again = await nsc.refresh(conn)
        assert again.context == conn.context, "a refresh changes nothing"

        await nsc.close(conn)
        assert await nsc.pod.links() == await nse.pod.links() == []
        print("closed: no interface is left")


if __name__ == "__main__":
    why_not = NAMESPACES.why_not()
    if why_not:
        print(f"no real packets here: {why_not}")
    anyio.run(main, MEMORY if why_not else NAMESPACES)
