# SPDX-License-Identifier: Apache-2.0
"""One local connection through registry, manager, forwarder and endpoint, with the simulated datapath.

Does:  first Request, refresh and Close, against a bare echo in the same turn: in process, in one process over sockets,
       and with one process per role. Beside each first Request stands the cold one: the first of a mesh that was
       started a moment ago, with no channel open and no candidate known.
Place: `python -m benchmarks mesh`.
State: a mesh at a time, removed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks import echo
from benchmarks.echo import Echo
from benchmarks.measure import Times, milli
from benchmarks.report import note, row
from nsm_sdk.api import Connection, Request, ServiceUrl
from nsm_sdk.core import Next, Running
from nsm_sdk.lab import INPROC, PROGRAMS_SIMULATED, UNIX, Cluster, Mode
from nsm_sdk.lab.program import ProgramHop
from nsm_sdk.lab.workload import LabClient

URL = "kernel://icmp-responder/nsm-1"
ROUNDS = 200
CYCLES = 2
"""Requests, refreshes and Closes of a round."""
BLOCKS = 2
"""Blocks of echoes before them."""
WARM_UP = 30
COLD = 3
"""Meshes started for the cold figure."""
RELAYS = 3
"""Processes behind the client: manager, forwarder, endpoint."""


class Caller:
    """Calls a client's chain as `Client` does, without what the lab adds."""

    def __init__(self, client: LabClient) -> None:
        self.running: Running = client.served.running
        found = self.running.bound.connection
        assert found is not None
        self.down: Next = found
        self._mechanism = ServiceUrl.parse(URL).mechanism()

    async def request(self, conn_id: str) -> Connection:
        """A connection of that id."""
        request = Request(mechanism_preferences=[self._mechanism])
        request.connection.id = conn_id
        request.connection.network_service = "icmp-responder"
        return await self.down.request(self.running.call(timeout=15), request)

    async def refresh(self, conn: Connection) -> Connection:
        """The same again."""
        request = Request()
        request.connection.CopyFrom(conn)
        return await self.down.request(self.running.call(timeout=15), request)

    async def close(self, conn: Connection) -> None:
        """The end of it."""
        await self.down.close(self.running.call(timeout=15), conn)


@contextlib.contextmanager
def unread(cluster: Cluster) -> Iterator[None]:
    """Somebody else reads what programs print, as on any machine: the lab would do it in the process that measures."""
    readers: list[subprocess.Popen[bytes]] = []
    pipes: list[Any] = []
    for hop in cluster.hops.values():
        if isinstance(hop, ProgramHop) and hop._process is not None:
            transport: Any = getattr(hop._process, "_transport").get_pipe_transport(1)  # noqa: B009
            transport.pause_reading()
            pipe = transport.get_extra_info("pipe")
            pipes.append((transport, pipe.fileno()))
            os.set_blocking(pipe.fileno(), True)
            readers.append(subprocess.Popen(["cat"], stdin=pipe, stdout=subprocess.DEVNULL))
    try:
        yield
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
        for transport, number in pipes:
            os.set_blocking(number, False)
            transport.resume_reading()


async def caller_of(cluster: Cluster, prefix: str = "172.16.0.0/16") -> Caller:
    """A client in a fresh mesh of one node, whose endpoint is registered."""
    node = await cluster.node()
    await node.endpoint("nse", prefix=prefix)
    return Caller(await node.client("nsc"))


def several(base: Echo, count: int) -> Echo:
    """So many echoes one after the other: what takes about as long as a call through the mesh is interrupted as often
    when the machine has other things to do."""

    async def run() -> None:
        for _ in range(count):
            await base()

    return run


async def rounds(caller: Caller, base: Echo, times: Times, count: int, mark: str = "") -> None:
    """Some echoes, then Request, refresh and Close, some times over: each runs right after its like, as in a process
    that has little else to do; the caches of the machine are warm for both."""
    for number in range(count):
        for _ in range(BLOCKS):
            await times.take("echo", base())
        for turn in range(CYCLES):
            conn = await times.take(f"{mark}request", caller.request(f"nsc-{number}-{turn}"))
            conn = await times.take(f"{mark}refresh", caller.refresh(conn))
            await times.take(f"{mark}close", caller.close(conn))


async def measured(mode: Mode, base: Echo, times: Times, count: int) -> None:
    """Into `times`, beside one other connection that stays, as in a running mesh, and (`lone`) without any."""
    async with Cluster(mode, name="bench") as cluster:
        caller = await caller_of(cluster)
        with unread(cluster):
            await rounds(caller, base, Times(), WARM_UP)
            await rounds(caller, base, times, count // 3, "lone ")
            standing = await caller.request("standing")
            await rounds(caller, base, Times(), WARM_UP)
            await rounds(caller, base, times, count)
            await caller.close(standing)


async def cold(mode: Mode, base: Echo, times: Times) -> None:
    """The first Request of a mesh."""
    async with Cluster(mode, name="bench") as cluster:
        caller = await caller_of(cluster)
        await base()
        await times.take("cold", caller.request("nsc-0"))


async def part(what: str, mode: Mode, base: Echo, reach: tuple[float, float, float], unit: str = "echo") -> None:
    """The rows of one mode."""
    times = Times()
    length = int(min(reach))
    for _ in range(COLD):
        await cold(mode, base, times)
    await measured(mode, several(base, length), times, ROUNDS)
    times.taken["echo"] = [seconds / length for seconds in times.taken["echo"]]
    for name, most in zip(("request", "refresh", "close"), reach, strict=True):
        label = f"{what}: {'first Request' if name == 'request' else name}"
        row(label, times.ratio(name, "echo"), most, unit, detail=times.detail(name, "echo"))
    note("  first Request, no other connection there", times.ratio("lone request", "echo"), unit)
    note("  Close, no other connection there", times.ratio("lone close", "echo"), unit)
    note("  first Request, cold", times.ratio("cold", "echo"), unit, milli(times.median("cold")))


async def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    async with echo.one_loop() as one:
        await part("inproc", INPROC, one, (1, 1, 1))
        await part("one process, sockets", UNIX, one, (5, 4, 4))
    async with echo.relay(RELAYS) as relay, echo.two_processes() as two:
        times: Any = Times()
        for _ in range(ROUNDS):
            await times.take("relay", relay())
            await times.take("echo", two())
        note(f"bare relay of {RELAYS} processes", times.ratio("relay", "echo"), "echo", times.detail("relay", "echo"))
        await part("one process per role, unix sockets", PROGRAMS_SIMULATED, relay, (2, 2, 2), "relay")


if __name__ == "__main__":
    asyncio.run(main())
