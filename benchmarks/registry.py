# SPDX-License-Identifier: Apache-2.0
"""The registry in process: look-ups, registrations, watchers.

Does:  finds by service and by name among 100 and among 100,000 endpoints, with results of the same size; registers
       through the whole chain and into the store alone; tells 1,000 watchers of one update that concerns all, or one.
Place: `python -m benchmarks registry`, or `python -m benchmarks.registry [rounds]`.
State: none.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from contextlib import aclosing
from typing import Any

from benchmarks.measure import milli
from benchmarks.report import note, row
from nsm_sdk.api import NetworkServiceEndpoint
from nsm_sdk.core import NSE, Chain, Query, Role, Running, find_all
from nsm_sdk.registry import Begin, Expire, Memory, MemoryStore, RegistrationTime, UpdatePath
from nsm_sdk.security import Insecure, TokenGenerator

FEW, MANY = 100, 100_000
PER_SERVICE = 10
WATCHERS = 1_000


def endpoint(number: int, url: str = "tcp://10.0.0.1:5001") -> NetworkServiceEndpoint:
    """One endpoint; ten offer the same service."""
    entry = NetworkServiceEndpoint(
        name=f"nse-{number}", network_service_names=[f"service-{number // PER_SERVICE}"], url=url
    )
    entry.network_service_labels[f"service-{number // PER_SERVICE}"].labels["app"] = "firewall"
    return entry


def registry(store: MemoryStore[NetworkServiceEndpoint]) -> Role:
    """The endpoint registry as it is served, path of tokens and expiry included."""
    tokens = TokenGenerator(Insecure("registry", "registry"))
    chain: Chain[Any] = Chain(
        "endpoints", UpdatePath(tokens), Begin(NSE), RegistrationTime(), Expire(60), Memory(NSE, store)
    )
    return Role("registry", nse=chain)


async def finds(running: Running, query: NetworkServiceEndpoint, size: int, count: int = 2_000) -> float:
    """Seconds for one find that gives `size` results."""
    bound: Any = running.bound.nse
    assert len(await find_all(bound, running.call(), Query(query))) == size
    began = time.perf_counter()
    for _ in range(count):
        await find_all(bound, running.call(), Query(query))
    return (time.perf_counter() - began) / count


async def registers(running: Running, numbers: range) -> float:
    """Registrations per second through the chain."""
    bound: Any = running.bound.nse
    entries = [endpoint(number) for number in numbers]
    began = time.perf_counter()
    for entry in entries:
        await bound.register(running.call(timeout=15), entry)
    return len(entries) / (time.perf_counter() - began)


async def told(running: Running, queries: list[NetworkServiceEndpoint], concerned: int, rounds: int) -> float:
    """Seconds from one registration until all watchers that it concerns have read it; the median."""
    bound: Any = running.bound.nse
    seen = 0
    everybody = asyncio.Event()

    async def watch(query: NetworkServiceEndpoint) -> None:
        nonlocal seen
        async with aclosing(bound.find(running.call(), Query(query, watch=True))) as stream:
            async for _ in stream:
                seen += 1
                if seen == concerned:
                    everybody.set()

    tasks = [asyncio.create_task(watch(query)) for query in queries]
    await asyncio.sleep(0.1)
    times: list[float] = []
    for turn in range(rounds):
        seen = 0
        everybody.clear()
        entry = NetworkServiceEndpoint(
            name="watched-1", network_service_names=["watched"], url=f"tcp://10.0.0.1:{turn}"
        )
        began = time.perf_counter()
        await bound.register(running.call(timeout=15), entry)
        await everybody.wait()
        times.append(time.perf_counter() - began)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(times)


async def main(rounds: int) -> None:
    """All rows."""
    by_service = NetworkServiceEndpoint(network_service_names=["service-7"])
    by_name = NetworkServiceEndpoint(name="nse-77")
    few: MemoryStore[NetworkServiceEndpoint] = MemoryStore(NSE)
    many: MemoryStore[NetworkServiceEndpoint] = MemoryStore(NSE)
    async with registry(few).serving() as small, registry(many).serving() as big:
        for number in range(FEW):
            few.put(endpoint(number))
        for number in range(MANY):
            many.put(endpoint(number))
        gc.collect()
        for what, query, size in (("by service", by_service, PER_SERVICE), ("by name", by_name, 1)):
            pairs = [(await finds(small, query, size), await finds(big, query, size)) for _ in range(rounds)]
            one, other = (statistics.median(times) for times in zip(*pairs, strict=True))
            detail = f"{milli(other)} against {milli(one)}"
            row(f"find {what}, {MANY:,} endpoints against {FEW}", other / one, 1.5, detail=detail)
    store: MemoryStore[NetworkServiceEndpoint] = MemoryStore(NSE)
    async with registry(store).serving() as running:
        new = [await registers(running, range(turn * 10_000, (turn + 1) * 10_000)) for turn in range(rounds)]
        again = [await registers(running, range(turn * 10_000, (turn + 1) * 10_000)) for turn in range(rounds)]
        row("register through the chain", statistics.median(new), 20_000, "/s", most=False)
        note("  the same endpoints again", statistics.median(again), "/s")
        entries = [endpoint(number) for number in range(20_000)]
        began = time.perf_counter()
        for entry in entries:
            store.put(entry)
        note("  in the store alone", len(entries) / (time.perf_counter() - began), "/s")
        everybody = [NetworkServiceEndpoint(network_service_names=["watched"]) for _ in range(WATCHERS)]
        one_each = [NetworkServiceEndpoint(name=f"watched-{number}") for number in range(WATCHERS)]
        for what, queries, concerned, reach in (("all", everybody, WATCHERS, 10), ("one", one_each, 1, 0.1)):
            took = await told(running, queries, concerned, 5 * rounds)
            row(f"one update, {WATCHERS:,} watchers, {what} matching", took * 1e3, reach, "ms")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
