# SPDX-License-Identifier: Apache-2.0
"""How fast healing detects and repairs, and what watching costs.

Does:  kills an endpoint while another stands by; lets datapaths fail silently; sets links down; watches many
       connections that are well. A mesh over sockets in one process; an echo is a bare call over a socket.
Place: `python -m benchmarks heal`.
State: none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import socket
import statistics
import subprocess
import time

from benchmarks.echo import one_loop
from benchmarks.report import note, row
from nsm_sdk import lab
from nsm_sdk.api import Connection
from nsm_sdk.heal import Ask, Carrier, Event, Happening, Heal, Icmp, Liveness, Target
from nsm_sdk.heal.probes import Regular, ping_allowed
from nsm_sdk.lab import Cluster, LabEndpoint, Node
from nsm_sdk.mechanisms.model import SetLink
from nsm_sdk.netlink import (
    SocketWatch,
    create_namespace,
    delete_namespace,
    namespace_url,
    probe_now,
    run_inside,
)
from nsm_sdk.netlink.requests import encode
from nsm_sdk.netlink.sockets import NetlinkSocket
from nsm_sdk.testing import rig

URL = "kernel://icmp-responder"
ROUNDS = 15
SILENT = 60
MANY = 100
IDLE = 1000


class Healed:
    """When connections are healed."""

    def __init__(self, heal: Heal) -> None:
        self.at: dict[str, float] = {}
        self._changed = asyncio.Event()
        heal.happenings.told.append(self._told)

    def _told(self, happening: Happening) -> None:
        if happening.event is Event.HEALED:
            self.at[happening.id] = time.perf_counter()
            self._changed.set()

    async def count(self, count: int) -> None:
        """Wait until so many are healed."""
        while len(self.at) < count:
            self._changed.clear()
            await self._changed.wait()


async def close_and_request(node: Node) -> float:
    """Median seconds of one Close and one Request."""
    client = await node.client(f"steady-{len(node.cluster.pods)}")
    taken = []
    for _ in range(20):
        conn = await client.request(URL)
        began = time.perf_counter()
        await client.close(conn)
        conn = await client.request(URL)
        taken.append(time.perf_counter() - began)
        await client.close(conn)
    await client.stop()
    return statistics.median(taken)


async def echo_time() -> float:
    """Median seconds of a bare call over a unix socket in one process."""
    async with one_loop() as echo:
        taken = []
        for _ in range(300):
            began = time.perf_counter()
            await echo()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def killed(node: Node) -> None:
    """NSE killed, second one standing by."""
    pair = await close_and_request(node)
    taken = []
    for number in range(ROUNDS):
        first = await node.endpoint(f"a{number}", service=f"s{number}")
        heal = Heal()
        healed = Healed(heal)
        client = await node.client(f"kill-{number}", heal)
        conn = await client.request(f"kernel://s{number}")
        second = await node.endpoint(f"b{number}", service=f"s{number}")
        await asyncio.sleep(0.2)
        began = time.perf_counter()
        await first.hop.kill()
        await healed.count(1)
        taken.append(healed.at[conn.id] - began)
        await client.close(conn)
        await client.stop()
        await second.stop()
    median = statistics.median(taken)
    note("endpoint killed, another stands by: from kill to healed", median * 1e3, "ms", "Go 18.5 ms, 26 echoes")
    unary = await echo_time()
    row("the same in echoes", median / unary, 12, "echoes", detail=f"an echo takes {unary * 1e3:.2f} ms")
    note("the same in (one Close and one Request)", median / pair, "x", f"those take {pair * 1e3:.1f} ms")


async def silent(node: Node) -> None:
    """The datapath fails and nobody says so.

    Failures are spread evenly over the time between two checks: of 60 random moments, the median alone would be off by
    a sixteenth of the interval, 12 ms, as often as not by more than all that healing itself takes.
    """
    pair = await close_and_request(node)
    interval, timeout = 0.2, 0.1
    dead: set[str] = set()
    checks: list[float] = []
    checked = asyncio.Event()

    async def alive(conn: Connection) -> bool:
        checks.append(time.perf_counter())
        checked.set()
        if conn.network_service_endpoint_name in dead:
            await asyncio.sleep(timeout * 2)
        return True

    endpoints = [await node.endpoint(f"silent-{number}", service="silent") for number in range(2)]
    heal = Heal(Ask(alive), liveness=Liveness(interval=interval, timeout=timeout))
    healed = Healed(heal)
    client = await node.client("silent", heal)
    conn = await client.request("kernel://silent")
    dice, taken = random.Random(1), []
    await asyncio.sleep(50 * interval)
    between = statistics.mean(after - before for before, after in itertools.pairwise(checks))
    for turn in dice.sample(range(SILENT), SILENT):
        await asyncio.sleep(0.3 + dice.random() * interval)
        healed.at.clear()
        now = next(iter(dead), "")
        dead.clear()
        standing = await client.refresh(conn)
        checked.clear()
        await checked.wait()
        await asyncio.sleep(between * (turn + 0.5) / SILENT)
        began = time.perf_counter()
        dead.add(standing.network_service_endpoint_name)
        await healed.count(1)
        taken.append(healed.at[conn.id] - began)
        assert now != standing.network_service_endpoint_name
    await client.close(conn)
    taken.sort()
    reach = interval / 2 + timeout + pair
    row(
        "silent failure to healed, 200 ms interval, 100 ms time-out: median",
        taken[len(taken) // 2] * 1e3,
        reach * 1e3,
        "ms",
    )
    note("time between two checks", between * 1e3, "ms")
    worst = taken[min(int(len(taken) * 0.99), len(taken) - 1)]
    row("the same: p99", worst * 1e3, (interval + timeout + pair) * 1e3, "ms")
    for endpoint in endpoints:
        await endpoint.stop()


async def many(node: Node) -> None:
    """A hundred connections whose endpoint dies."""
    pair = await close_and_request(node)
    first: LabEndpoint = await node.endpoint("many-a", service="many", prefix="10.1.0.0/16")
    heal = Heal()
    healed = Healed(heal)
    client = await node.client("many", heal)
    conns = [await client.request("kernel://many", id=f"many-{number}") for number in range(MANY)]
    second = await node.endpoint("many-b", service="many", prefix="10.1.0.0/16")
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    await first.hop.kill()
    await healed.count(MANY)
    taken = max(healed.at.values()) - began
    row(
        f"{MANY} connections whose endpoint died: all healed",
        taken * 1e3,
        MANY * pair * 1e3,
        "ms",
        detail="Go 1,150 ms",
    )
    for conn in conns:
        await client.close(conn)
    await client.stop()
    await second.stop()


async def links() -> None:
    """From link down to detection."""
    found = probe_now()
    if os.geteuid() or not all(found.works(name) for name in ("namespaces", "veth")):
        print("link down to detection: needs root and network namespaces")
        return
    name, link = create_namespace(prefix="bench"), "nsm-1"
    try:
        _ip(name, "link", "add", link, "type", "veth", "peer", "name", "far")
        _ip(name, "link", "set", "far", "up")
        probe = Carrier(links=SocketWatch.open, inside=run_inside)
        async with rig() as bench:
            await probe.acquire(bench.runtime)
            taken = []
            for _ in range(50):
                _ip(name, "link", "set", link, "up")
                target = Target(id="c", namespace=namespace_url(name), interface=link)
                heard: asyncio.Queue[tuple[float, bool | None]] = asyncio.Queue()
                stop = probe.follow(
                    bench.runtime,
                    target,
                    lambda verdict, heard=heard: heard.put_nowait((time.perf_counter(), verdict.alive)),  # type: ignore[misc]
                )
                assert stop is not None
                while not (await heard.get())[1]:
                    pass
                began = time.perf_counter()
                run_inside(name, lambda: _set_down(link))
                while (item := await heard.get())[1]:
                    pass
                taken.append(item[0] - began)
                stop()
            await probe.release()
        taken.sort()
        note("link down to detection: median", statistics.median(taken) * 1e3, "ms", "setting it down included")
        row("the same: p99", taken[-1] * 1e3, 50, "ms", detail="Go: never, it waits for a ping")
    finally:
        delete_namespace(name)


def _set_down(link: str) -> None:
    """By netlink: a process would take longer than what is measured."""
    with contextlib.closing(NetlinkSocket()) as channel:
        channel.send([encode(SetLink(up=False), socket.if_nametoindex(link))])


def _ip(namespace: str, *words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words], check=True, capture_output=True)


async def watching() -> None:
    """CPU of watching connections that are well."""
    if not ping_allowed():
        print("watching by ICMP: this process may not ping")
        return
    probe = Icmp()
    async with rig() as bench:
        await probe.acquire(bench.runtime)
        failed: list[str] = []
        liveness = Liveness(interval=1.0, timeout=1.0)
        regular = [
            Regular(
                bench.runtime,
                probe,
                Target(id=str(number), pairs=(("127.0.0.1", f"127.0.{number // 250 + 1}.{number % 250 + 1}"),)),
                liveness,
                random.Random(number),
                lambda verdict, _: None if verdict.alive else failed.append(verdict.why),
            )
            for number in range(IDLE)
        ]
        await asyncio.sleep(1.5)
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(10)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        for one in regular:
            one.stop()
        await probe.release()
    assert not failed, failed[:3]
    row(f"CPU of watching {IDLE} healthy connections, 1 s ICMP checks", share * 100, 10, "% core")


async def main() -> None:
    """All of it."""
    # What hops have to say of peers that were killed on purpose is no news here.
    logging.getLogger("nsm_sdk").setLevel(logging.ERROR)
    async with Cluster(lab.UNIX, name="bench") as cluster:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1", prefix="172.16.0.0/24")
        await killed(node)
        await silent(node)
        await many(node)
    await links()
    await watching()


if __name__ == "__main__":
    asyncio.run(main())
