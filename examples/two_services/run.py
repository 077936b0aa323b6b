# SPDX-License-Identifier: Apache-2.0
"""One endpoint that offers two services, each with addresses of its own."""

import anyio

from nsm_sdk import Call, Client, Connection, Endpoint
from nsm_sdk.elements import Case, Condition, Switch
from nsm_sdk.ipam import PointToPointIpam
from nsm_sdk.lab import INPROC, Cluster, Mode


def asks_for(service: str) -> Condition:
    """A condition: the connection is one to `service`."""

    def holds(call: Call, conn: Connection) -> bool:
        return conn.network_service == service

    return holds


async def main(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        work = Switch(
            "service",
            Case("blue", asks_for("blue"), PointToPointIpam("10.0.1.0/24")),
            Case("green", asks_for("green"), PointToPointIpam("10.0.2.0/24")),
        )
        manager, listen = node.manager.url, cluster.address("nse")
        async with (
            Endpoint("nse", work, service=["blue", "green"], registry=manager, listen=listen),
            Client(manager) as client,
            client.connect("kernel://blue/nsm-1") as blue,
            client.connect("kernel://green/nsm-2") as green,
        ):
            for connection in (blue, green):
                print(connection.interface, connection.src, "->", connection.dst, "at", connection.endpoint)
            assert (blue.dst, green.dst) == (["10.0.1.0/32"], ["10.0.2.0/32"])
            assert blue.endpoint == green.endpoint == "nse"


if __name__ == "__main__":
    anyio.run(main, INPROC)
