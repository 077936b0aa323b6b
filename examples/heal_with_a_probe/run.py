# SPDX-License-Identifier: Apache-2.0
"""A client that looks at its packets: when they stop it gets a new connection, whatever the programs say.

Two endpoints offer the service. An interface is deleted by hand; the programs have noticed nothing.
"""

import anyio

from nsm_sdk import Client, Connection
from nsm_sdk.heal import Ask, Auto, Event, Heal, Liveness, Probe
from nsm_sdk.lab import MEMORY, NAMESPACES, Cluster, Mode, Pod
from nsm_sdk.netlink import SocketWatch, run_inside


def probe_for(mode: Mode, pod: Pod) -> Probe:
    """With a kernel: link events, and pings. Without: a check of our own, as any application may have one."""

    async def alive(conn: Connection) -> bool:
        return any(link.name == "nsm-1" for link in await pod.links())

    return Ask(alive) if mode is MEMORY else Auto(links=SocketWatch.open, inside=run_inside)


async def main(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        for number in (1, 2):
            await node.endpoint(f"nse-{number}", service="my-service", prefix=f"10.0.{number}.0/24")
        pod = await node.pod("nsc")
        # These endpoints share no addresses, so there is no point in asking the next one for the last ones.
        liveness = Liveness(interval=0.2, timeout=2.0)
        heal = Heal(probe_for(mode, pod), liveness=liveness, namespace=pod.url, offer_addresses=False)
        async with (
            Client(node.manager.url, heal=heal, namespace=pod.url) as client,
            client.connect("kernel://my-service/nsm-1") as connection,
        ):
            before = connection.endpoint
            print("established at", before, connection.src, "->", connection.dst)
            async with connection.events() as events:
                await pod.unlink("nsm-1")
                async for happening in events:
                    print(f"{happening.event:8} {happening.why}")
                    if happening.event is Event.HEALED:
                        assert happening.repair is not None
                        print(f"repaired in {happening.repair * 1000:.0f} ms")
                        break
            print("now at", connection.endpoint, connection.src, "->", connection.dst)
            assert connection.endpoint != before, (
                "the endpoint whose packets stopped is taken only when no other will do"
            )
            assert [link.name for link in await pod.links()] == ["nsm-1"]
            ours, theirs = (text.partition("/")[0] for text in (connection.src[0], connection.dst[0]))
            assert (await pod.ping(theirs, source=ours)).ok


if __name__ == "__main__":
    anyio.run(main, MEMORY if NAMESPACES.why_not() else NAMESPACES)
