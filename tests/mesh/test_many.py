# SPDX-License-Identifier: Apache-2.0
"""Many connections, one after the other and at once.

Does:  ten thousand connects and closes in one process leave no task, slot, registry entry or address, and memory flat;
       two hundred through namespaces leave no interface, route, rule or descriptor.
Place: whole meshes.
State: a cluster per test.
"""

from __future__ import annotations

import asyncio
import gc
import os

import anyio
import psutil
import pytest

from nsm_sdk.api import Connection, Request, policy_route
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.lab import INPROC, NAMESPACES, PROGRAMS, UNIX, Cluster, Mode, ProgramHop
from tests.mesh.modes import URL, every_mode, nothing_left, run, steady

MIB = 1 << 20


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_thousand_connects_and_closes_leave_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")

        async def cycles(count: int) -> None:
            for _ in range(count):
                await nsc.close(await nsc.request(URL))

        await cycles(2000)
        before, memory = await cluster.counts(), resident()
        await cycles(8000)
        await nothing_left(cluster, before, "none")
        grown = resident() - memory
        assert grown < 2 * MIB, f"{grown / MIB:.1f} MiB more after 8,000 more connections"

    run(INPROC, scenario)


@pytest.mark.slow
def test_a_thousand_connects_and_closes_over_sockets_leave_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        clients = [await node.client(f"nsc-{number}") for number in range(10)]

        async def cycles(count: int) -> None:
            async def one(number: int) -> None:
                for _ in range(count):
                    await clients[number].close(await clients[number].request(URL))

            async with anyio.create_task_group() as tasks:
                for number in range(len(clients)):
                    tasks.start_soon(one, number)

        await cycles(20)
        before, memory = await steady(cluster), resident()
        await cycles(100)
        await nothing_left(cluster, before, "none")
        assert resident() - memory < 4 * MIB

    run(UNIX, scenario)


class Policies(Element):
    """An endpoint's element that gives policy routes of both families."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        del conn.context.ip_context.policies[:]
        conn.context.ip_context.policies.extend(
            [policy_route(proto="6", dst_port="6666"), policy_route(source="fd00::1", proto="17", src_port="1-1024")]
        )
        return conn


@pytest.mark.netns
@pytest.mark.parametrize(
    "mode", [pytest.param(NAMESPACES, id="namespaces"), pytest.param(PROGRAMS, id="programs", marks=pytest.mark.long)]
)
def test_two_hundred_through_namespaces_leave_nothing(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        elements = [] if mode.programs else [Policies()]
        nse = await node.endpoint("nse-1", *elements, prefix=("10.1.0.0/24", "fd00:1::/64"))
        nsc = await node.client("nsc-1")
        await nsc.close(await nsc.request(URL))
        before = await steady(cluster)
        for number in range(200):
            conn = await nsc.request(URL)
            # At once: an interface that is given out must not drop the first packet.
            pings = await nsc.ping(conn)
            assert (number, pings.sent, pings.lost) == (number, 2, 0)
            if number % 50 == 0:
                held = await cluster.counts()
                assert (held.of("interfaces", "nsc-1"), held.of("interfaces", "nse-1")) == (1, 1)
                assert held.of("rules", "nsc-1") == (0 if mode.programs else 3)
            await nsc.close(conn)
        assert await nsc.pod.links() == await nse.pod.links() == []
        await nothing_left(cluster, before, "calls", "watchers", "tasks (candidates)")
        for hop in cluster.hops.values():
            if isinstance(hop, ProgramHop):
                assert len(os.listdir(f"/proc/{hop.pid}/fd")) < 64

    run(mode, scenario)


@every_mode("inproc", "memory", "unix", "namespaces")
def test_fifty_at_once(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        nse = await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        await nsc.close(await nsc.request(URL))
        before = await steady(cluster)
        conns: dict[int, Connection] = {}

        async def one(number: int) -> None:
            conns[number] = await nsc.request(f"kernel://icmp-responder/nsm-{number}", timeout=30.0)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(one, number)
        addresses = {address for conn in conns.values() for address in conn.context.ip_context.src_ip_addrs}
        assert len(addresses) == 50
        assert len(await nsc.pod.links()) == 50
        for number in (0, 17, 49):
            assert (await nsc.ping(conns[number])).ok
            assert (await nse.ping(conns[number])).ok
        async with anyio.create_task_group() as tasks:
            for conn in conns.values():
                tasks.start_soon(nsc.close, conn)
        await asyncio.sleep(0)
        await nothing_left(cluster, before)

    run(mode, scenario)
