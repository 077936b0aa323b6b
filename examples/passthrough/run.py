# SPDX-License-Identifier: Apache-2.0
"""A chain of functions: client, firewall, server. The firewall is an endpoint that hands its connections on.

Needs root for real packets; without, a kernel in memory stands for the real one.
"""

import anyio

from nsm_sdk import Call, Client, Connection, Element, Endpoint, Next, OfferedService, Request
from nsm_sdk.api import Destination, Match
from nsm_sdk.errors import PermissionDenied
from nsm_sdk.lab import MEMORY, NAMESPACES, Cluster, Mode

FIREWALL, SERVER = {"app": "firewall"}, {"app": "server"}
RULES = [
    Match(source_selector=FIREWALL, routes=[Destination(destination_selector=SERVER)]),
    Match(routes=[Destination(destination_selector=FIREWALL)]),
]


class Filter(Element):
    """Lets nobody through whose label says that it is not to be trusted."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if request.connection.labels.get("trusted") == "no":
            raise PermissionDenied("the firewall lets nobody through that is not trusted", hint="change the label")
        return await next.request(call, request)


async def main(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        manager, inside, outside = node.manager.url, await node.pod("firewall"), await node.pod("app")
        server = await node.endpoint("server", service="web", labels=SERVER, prefix="172.16.1.100/31")
        firewall = Endpoint(
            "firewall",
            Filter(),
            service=OfferedService("web", matches=RULES),
            labels=FIREWALL,
            registry=manager,
            listen=cluster.address("firewall"),
            namespace=inside.url,
            passthrough=True,
            forwards=mode is NAMESPACES,
        )
        async with firewall, Client(manager, name="app", namespace=outside.url) as client:
            async with client.connect("kernel://web/nsm-1") as connection:
                print("path:", " > ".join(connection.path))
                assert [name for name in connection.path if "node" not in name] == ["app", "firewall", "server"]
                assert connection.dst == ["172.16.1.100/32"], "addresses come from the end of the chain"
                links = await inside.links()
                print("the firewall has", len(links), "interfaces:", *sorted(link.name for link in links))
                assert len(links) == 2
                if mode is NAMESPACES:
                    source, target = connection.src[0].partition("/")[0], connection.dst[0].partition("/")[0]
                    there = await outside.ping(target, source=source, count=3)
                    back = await server.pod.ping(source, source=target, count=3)
                    print(f"pings: {len(there.times)} of 3 there, {len(back.times)} of 3 back")
                    assert there.times
                    assert back.ok
            assert await inside.links() == []
            try:
                async with client.connect("kernel://web/nsm-1?trusted=no"):
                    raise AssertionError("it must not get through")
            except PermissionDenied as refused:
                print(f"{refused.hop} refuses: {refused.message}")
                assert refused.hop == "firewall"


if __name__ == "__main__":
    why_not = NAMESPACES.why_not()
    if why_not:
        print(f"no real packets here: {why_not}")
    anyio.run(main, MEMORY if why_not else NAMESPACES)
