# SPDX-License-Identifier: Apache-2.0
"""Kernel plumbing: the cost of one connection, and what it does to the event loop.

Does:  joins two namespaces by 50 connections (both ends, IPv4 and IPv6) and compares with the same netlink messages
       sent pre-encoded; then joins and removes 50 at once and measures the longest stall of the event loop.
Place: `python -m benchmarks plumbing`, as root.
State: two namespaces and a folder, for the length of the run.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.report import note, row
from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.core import Role
from nsm_sdk.errors import NsmError
from nsm_sdk.mechanisms import CLIENT_SIDE, ENDPOINT_SIDE, Desired, KernelDatapath, Link, Observed, Tag, desired, diff
from nsm_sdk.mechanisms.ports import Joint, Kernel, NewEnd
from nsm_sdk.netlink import NetlinkThread, namespace_url, requests, temporary_namespace
from nsm_sdk.netlink.kernel import NamespaceAdapter

COUNT = 50
ROUNDS = 5


def joint(number: int, a: str, b: str) -> Joint:
    """One connection with an address, a route and a neighbour of each family on each end."""
    conn = Connection(id=f"connection-{number}", payload="IP")
    conn.path.path_segments.add(name="nsc", id=f"nsc-{number}")
    ip = conn.context.ip_context
    ip.src_ip_addrs.extend([f"172.16.{number}.1/32", f"fd00:{number:x}::1/128"])
    ip.dst_ip_addrs.extend([f"172.16.{number}.0/32", f"fd00:{number:x}::/128"])
    for src, dst in zip(ip.src_ip_addrs, ip.dst_ip_addrs, strict=True):
        ip.src_routes.add(prefix=dst)
        ip.dst_routes.add(prefix=src)
    conn.context.MTU = 1450
    near, far = (
        Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": f"{side}-{number}", "inodeURL": namespace_url(space)})
        for side, space in (("near", a), ("far", b))
    )
    return Joint(connection=conn, near=near, far=far)


def fresh(want: Desired) -> Link:
    """A link as the kernel has just made it."""
    return Link(name=want.name, mac=want.mac, mtu=want.mtu, up=False)


class Raw:
    """The same messages, encoded beforehand."""

    def __init__(self, one: Joint, number: int, far_handle: int) -> None:
        self.indexes = (1 << 20) + number, (1 << 21) + number
        wants = [
            desired(one.connection, mechanism, Tag(forwarder="raw", role=role, segment=one.segment, connection=one.id))
            for role, mechanism in ((CLIENT_SIDE, one.near), (ENDPOINT_SIDE, one.far))
        ]
        ends = [NewEnd(name=want.name, mac=want.mac, mtu=want.mtu) for want in wants]
        self.pair = [requests.pair(ends[0], self.indexes[0], ends[1], self.indexes[1], far_handle)]
        self.batches = [
            [requests.encode(op, index) for op in diff(want, Observed(link=fresh(want)))]
            for want, index in zip(wants, self.indexes, strict=True)
        ]

    def messages(self) -> int:
        return 1 + sum(map(len, self.batches))


async def raw_times(netlink: NetlinkThread, joints: list[Joint], into: list[float], each: list[float]) -> int:
    """Sends what was encoded beforehand, one connection at a time, through the netlink thread.

    `into` gets the seconds with the way to the thread and back, as ours are measured; `each` those of sending alone.
    Answers the number of messages for a connection.
    """
    urls = [one.parameters["inodeURL"] for one in (joints[0].near, joints[0].far)]
    near, far = await netlink.run(lambda kernel: [kernel.open(url) for url in urls])
    assert isinstance(near, NamespaceAdapter)
    assert isinstance(far, NamespaceAdapter)
    sockets, handle = (near.channel, far.channel), far.handle

    def send(_: Kernel, one: Raw) -> None:
        began = time.perf_counter()
        codes = sockets[0].send(one.pair) + sockets[0].send(one.batches[0]) + sockets[1].send(one.batches[1])
        each.append(time.perf_counter() - began)
        assert not any(codes), codes

    packets = [Raw(one, number, handle) for number, one in enumerate(joints)]
    for one in packets:
        began = time.perf_counter()
        await netlink.run(partial(send, one=one))
        into.append(time.perf_counter() - began)
    await netlink.run(lambda _: [near.delete_link(one.indexes[0]) for one in packets])
    return packets[0].messages()


async def longest_stall(work: asyncio.Future[object]) -> float:
    """The longest time for which the loop did not turn while `work` went on, in seconds."""
    worst, last = 0.0, time.perf_counter()
    while not work.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        worst, last = max(worst, now - last - 0.001), now
    await work
    return worst


async def main() -> None:
    # a forwarder keeps its records in /run, which is in memory on most machines
    memory = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)
    with (
        temporary_namespace("bench") as a,
        temporary_namespace("bench") as b,
        tempfile.TemporaryDirectory(dir=memory) as folder,
    ):
        await measure(a, b, Path(folder))


async def measure(a: str, b: str, folder: Path) -> None:
    netlink = NetlinkThread(idle=60)
    datapath = KernelDatapath(netlink, name="bench", state=folder, orphan_timeout=None)
    async with Role("bench", services=[datapath]).serving():
        joints = [joint(number, a, b) for number in range(COUNT)]
        raw: list[float] = []
        alone: list[float] = []
        ours: list[float] = []
        refresh: list[float] = []
        messages = 0
        for _ in range(ROUNDS):
            messages = await raw_times(netlink, joints, raw, alone)
            for into in (ours, refresh):
                for one in joints:
                    began = time.perf_counter()
                    await datapath.join(one)
                    into.append(time.perf_counter() - began)
            for one in joints:
                await datapath.part(one.connection)
        bare, base, mine = (statistics.median(one) * 1e3 for one in (alone, raw, ours))
        detail = f"{mine:.2f} ms against {base:.2f} ms"
        row("one connection plumbed, against the messages pre-encoded", mine / base, 2, detail=detail)
        note(f"  the {messages} messages, sending alone", bare, "ms")
        note("  verified again (refresh)", statistics.median(refresh) * 1e3, "ms")

        async def both() -> None:
            await asyncio.gather(*(datapath.join(one) for one in joints))
            await asyncio.gather(*(datapath.part(one.connection) for one in joints))

        stall = await longest_stall(asyncio.ensure_future(both()))
        row(f"longest stall of the loop, {COUNT} plumbed and removed", stall * 1e3, 15, "ms")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except NsmError as error:
        print(f"skipped: {error}")
