# SPDX-License-Identifier: Apache-2.0
"""Many connections, many callers.

Does:  measures a Request beside 1,000 idle connections and beside none; cycles of Request and Close per second by 50
       callers, against echoes per second by 50 callers; and the memory that an idle connection takes in all hops
       together, with tokens of 700 characters. All hops in one process, over unix sockets, simulated datapath.
Place: `python -m benchmarks load [idle|cycles|memory]`.
State: a mesh at a time, removed at the end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks import echo
from benchmarks.measure import Times
from benchmarks.mesh import Caller, caller_of
from benchmarks.report import note, row
from nsm_sdk.api import Connection
from nsm_sdk.lab import UNIX, Cluster
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.transport import Dialer

IDLE = 1_000
PHASES = 3
CALLS = 150
CALLERS = 50
SLICE = 1.5
"""Seconds of echoes, then as many of cycles."""
SLICES = 6
TOKEN = 700
FIRST, MORE = 200, 2_000
"""Connections before the memory is looked at first, and between that and the second time."""


async def many(caller: Caller, names: list[str]) -> list[Connection]:
    """Connections of these ids, a few at a time."""
    gate = asyncio.Semaphore(20)

    async def one(name: str) -> Connection:
        async with gate:
            return await caller.request(name)

    return await asyncio.gather(*map(one, names))


async def idle() -> None:
    """Request beside idle connections, in phases: none, 1,000, none, ..."""
    times = Times()
    async with Cluster(UNIX, name="bench") as cluster, echo.one_loop() as base:
        caller = await caller_of(cluster)
        await measure_requests(caller, base, Times(), "warm")
        for phase in range(PHASES):
            await measure_requests(caller, base, times, "none")
            standing = await many(caller, [f"idle-{phase}-{number}" for number in range(IDLE)])
            await measure_requests(caller, base, times, "idle")
            await asyncio.gather(*map(caller.close, standing))
        await measure_requests(caller, base, times, "none")
    # Against the echo of the same phase, so that a machine that slows down between two phases does not count.
    relative = times.ratio("idle", "idle echo") / times.ratio("none", "none echo")
    row(f"Request with {IDLE:,} idle connections against none", relative, 1.2, detail=times.detail("idle", "none"))


async def measure_requests(caller: Caller, base: echo.Echo, times: Times, phase: str) -> None:
    """Requests, each closed again, with an echo between."""
    for number in range(CALLS):
        await times.take(f"{phase} echo", base())
        conn = await times.take(phase, caller.request(f"nsc-{number}"))
        await caller.close(conn)


async def rate(step: Callable[[int], Awaitable[Any]], seconds: float) -> float:
    """How often per second the callers get through `step`, all at once."""
    until = time.perf_counter() + seconds
    count = 0

    async def call(number: int) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await step(number)
            count += 1

    began = time.perf_counter()
    await asyncio.gather(*map(call, range(CALLERS)))
    return count / (time.perf_counter() - began)


async def cycles() -> None:
    """Cycles per second, as a share of echoes per second."""
    async with Cluster(UNIX, name="bench") as cluster, echo.one_loop() as base:
        caller = await caller_of(cluster)

        async def cycle(number: int) -> None:
            await caller.close(await caller.request(f"nsc-{number}"))

        await rate(cycle, 1)
        pairs = [(await rate(lambda _: base(), SLICE), await rate(cycle, SLICE)) for _ in range(SLICES)]
    echoes, through = (statistics.median(found) for found in zip(*pairs, strict=True))
    share = statistics.median(mesh / bare for bare, mesh in pairs)
    row(
        f"Request + Close cycles, {CALLERS} callers, share of echoes",
        share,
        1 / 12,
        "rate",
        most=False,
        detail=f"{through:,.0f} /s against {echoes:,.0f} /s: 1 / {1 / share:.1f}",
    )


class LongTokens(Cluster):
    """A mesh whose hops have long names in their tokens."""

    def identity(self, role: str, name: str) -> tuple[TokenGenerator, Dialer]:
        subject = f"spiffe://insecure.test/{role}/{name}/"
        tokens = TokenGenerator(Insecure(role, name, subject=subject + "x" * (450 - len(subject))))
        while (missing := TOKEN - len(tokens.token()[0])) > 3:
            subject = tokens.source.signer().subject + "x" * (missing * 3 // 4)
            tokens = TokenGenerator(Insecure(role, name, subject=subject))
        return tokens, Dialer(tokens)


async def memory() -> None:
    """Resident memory of an idle connection."""
    async with LongTokens(UNIX, name="bench") as cluster:
        caller = await caller_of(cluster)
        conns = await many(caller, [f"first-{number}" for number in range(FIRST)])
        sizes = [len(hop.token) for hop in conns[-1].path.path_segments]
        stored = conns[-1].ByteSize()
        del conns
        before = await settled_memory()
        await many(caller, [f"more-{number}" for number in range(MORE)])
        one = (await settled_memory() - before) / MORE
    row("one idle connection, all hops in one process, resident", one, 56, "KiB", detail=f"connection {stored} bytes")
    note("  tokens in its path", statistics.mean(sizes), "bytes")


async def settled_memory() -> float:
    """Resident KiB once what is on its way has arrived."""
    await asyncio.sleep(1)
    gc.collect()
    return resident()


def resident() -> float:
    """Resident KiB of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def _networks(count: int) -> list[str]:
    return [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}/32" for n in range(1, count + 1)]


def _routes(conn: Connection) -> None:
    for network in _networks(33_000):
        conn.context.ip_context.src_routes.add(prefix=network)


LARGEST: dict[str, Callable[[Connection], None]] = {
    "one label of 4 MB": lambda conn: conn.labels.update(app="x" * 4_000_000),
    "15 MB of extra context": lambda conn: conn.context.extra_context.update(
        {str(n): "x" * 65_000 for n in range(230)}
    ),
    "33,000 labels": lambda conn: conn.labels.update({f"label-{n}": "x" for n in range(33_000)}),
    "99,000 excluded prefixes": lambda conn: conn.context.ip_context.excluded_prefixes.extend(_networks(99_000)),
    "33,000 routes": _routes,
    "8,000 addresses": lambda conn: conn.context.ip_context.src_ip_addrs.extend(_networks(8000)),
}
"""About as much as a message may have, of one thing each."""


async def sizes() -> None:
    """The longest that the loop stands still for the largest messages, all hops in one process."""
    async with Cluster(UNIX, name="bench") as cluster:
        caller = await caller_of(cluster)
        await caller.close(await caller.request("warm"))
        for name, fill in LARGEST.items():
            conn = Connection(id=name, network_service="icmp-responder")
            fill(conn)
            stalls = []
            for _ in range(3):
                ticking = asyncio.create_task(longest_stall(), name="stalls")
                await asyncio.sleep(0)
                answer = await caller.refresh(conn)
                ticking.cancel()
                stalls.append(await ticking)
                await caller.close(answer)
            note(
                f"longest stall of the loop, {name}", statistics.median(stalls) * 1e3, "ms", f"{conn.ByteSize()} bytes"
            )


async def longest_stall() -> float:
    """Seconds of the longest turn of the loop, until it is cancelled."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return longest


async def main(names: list[str]) -> None:
    logging.basicConfig(level=logging.ERROR)
    for name, part in {"idle": idle, "cycles": cycles, "memory": memory, "sizes": sizes}.items():
        if not names or name in names:
            await part()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
