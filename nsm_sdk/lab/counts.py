# SPDX-License-Identifier: Apache-2.0
"""What a mesh holds.

Does:  counts connections, registrations, addresses, interfaces, tasks and more, wherever they may be; tells what has
       come since an earlier count. Two equal counts mean that nothing was left.
Place: `Cluster.counts`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nsm_sdk.core import Running
from nsm_sdk.elements import Begin, Hub
from nsm_sdk.ipam.leasing import Supply
from nsm_sdk.lab.hop import Hop, ServedHop
from nsm_sdk.lab.pod import Pod
from nsm_sdk.lab.program import ProgramHop
from nsm_sdk.mechanisms import Join
from nsm_sdk.registry import Memory, RegistryBegin

Where = tuple[str, str]
"""(what is counted, where)"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of what there are where; a thing that is absent is not listed."""

    found: Mapping[Where, int]

    def of(self, what: str, where: str = "") -> int:
        """How many, at one place or in all: `of("connections")`, `of("interfaces", "nsc-1")`."""
        return sum(count for (kind, place), count in self.found.items() if kind == what and where in ("", place))

    def new_since(self, before: Counts, *, apart: Iterable[str] = ()) -> list[str]:
        """What is there more than `before`, as texts; empty when nothing is. `apart`: kinds that do not count."""
        skip = frozenset(apart)
        return [
            f"{count - before.found.get(key, 0)} {key[0]} at {key[1]}"
            for key, count in sorted(self.found.items())
            if count > before.found.get(key, 0) and key[0] not in skip
        ]

    def __str__(self) -> str:
        kinds: Counter[str] = Counter()
        for (kind, _), count in self.found.items():
            kinds[kind] += count
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"


async def count(hops: Iterable[Hop], pods: Iterable[Pod], *, descriptors: bool = True) -> Counts:
    """Count what these hold; `descriptors`: also those of this process, which takes a collection of garbage."""
    found: Counter[Where] = Counter()
    for hop in hops:
        if not hop.alive:
            continue
        if isinstance(hop, ServedHop):
            for running in hop.served:
                for kind, number in _in_role(running):
                    found[kind, hop.name] += number
        elif isinstance(hop, ProgramHop):
            for kind, number in (await _in_program(hop)).items():
                found[kind, hop.name] += number
    for pod in pods:
        for kind, number in (await pod.holds()).items():
            found[kind, pod.name] += number
    if descriptors:
        gc.collect()
        found["descriptors", "here"] = len(os.listdir("/proc/self/fd"))
    return Counts({key: number for key, number in found.items() if number})


def _in_role(running: Running) -> Iterator[tuple[str, int]]:
    for task, number in running.runtime.running.items():
        yield f"tasks ({task})", number
    yield "calls", running.runtime.calls
    yield "timers", len(running.runtime.timers)
    layers = [layer for chain in running.chains for layer in chain.walk()]
    for layer in layers:
        if isinstance(layer, Begin):
            yield "connections", len(layer)
            yield "slots", sum(map(len, layer.slots().values()))
        elif isinstance(layer, RegistryBegin):
            yield "registered through", len(layer)
        elif isinstance(layer, Memory):
            yield "entries", len(layer.store)
            yield "watchers", layer.store.watchers
        elif isinstance(layer, Join):
            yield "joined", len(list(layer.datapath.ids()))
    # What several elements share counts once.
    for service in {id(one): one for layer in layers for one in layer.services()}.values():
        if isinstance(service, Supply):
            yield "addresses", _taken(service)
        elif isinstance(service, Hub):
            yield "published", len(service)
            yield "subscribers", service.subscribers


def _taken(supply: Supply) -> int:
    fresh = Supply(tuple(supply.prefixes))
    return sum(new.size - used.size for new, used in zip(fresh.pools, supply.pools, strict=True))


async def _in_program(hop: ProgramHop) -> dict[str, int]:
    found = {"descriptors": len(os.listdir(f"/proc/{hop.pid}/fd"))}
    path = hop.settings.get("ADMIN_SOCKET", "")
    for kind in ("connections", "registrations") if path else ():
        lines = await ask(path, kind)
        found[kind] = sum("error" not in line for line in lines)
    return found


async def ask(path: str, command: str, timeout: float = 5.0) -> list[dict[str, Any]]:
    """What a program says at its admin socket."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(f"{command}\n".encode())
            writer.write_eof()
            text = await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return [json.loads(line) for line in text.splitlines() if line.strip()]
