# SPDX-License-Identifier: Apache-2.0
"""A client of two services whose endpoints hand out the same addresses: each is told what the other has given."""

import anyio

from nsm_sdk import Client
from nsm_sdk.ipam import ExcludedPrefixes
from nsm_sdk.lab import INPROC, Cluster, Mode

PREFIX = "172.16.1.96/29"


async def main(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        await node.endpoint("nse-1", service="service-1", prefix=PREFIX)
        await node.endpoint("nse-2", service="service-2", prefix=PREFIX)

        async with (
            Client(node.manager.url, ExcludedPrefixes()) as client,
            client.connect("kernel://service-1/nsm-1") as first,
            client.connect("kernel://service-2/nsm-2") as second,
        ):
            print("first: ", first.src, "->", first.dst)
            print("second:", second.src, "->", second.dst)
            assert (first.dst, first.src) == (["172.16.1.96/32"], ["172.16.1.97/32"])
            assert (second.dst, second.src) == (["172.16.1.98/32"], ["172.16.1.99/32"])

        # Services that know of each other may share addresses; policy routes then say which traffic goes where.
        aware = ExcludedPrefixes([["kernel://service-1/nsm-1", "kernel://service-2/nsm-2"]])
        async with (
            Client(node.manager.url, aware, name="aware") as client,
            client.connect("kernel://service-1/nsm-1") as first,
            client.connect("kernel://service-2/nsm-2") as second,
        ):
            print("aware: ", first.src, "and", second.src)
            assert (first.src, first.dst) == (second.src, second.dst)


if __name__ == "__main__":
    anyio.run(main, INPROC)
