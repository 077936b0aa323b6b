# SPDX-License-Identifier: Apache-2.0
"""Everything that can break, in every way in which it can.

Does:  plays one cell of the matrix: the client, the endpoint, the manager, the forwarder, the registry, the link, or
       two at once, is killed, stands still, is restarted, is cut off, or is slow. Says what became of the connection
       under a running ping, what was left of it when the client had gone, and what is not as it must be.
Place: tools/heal_matrix.py, tests. Needs the programs over TCP: unix sockets cannot be cut off.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from nsm_sdk.errors import NsmError
from nsm_sdk.lab.counts import Counts
from nsm_sdk.lab.faults import cut_off, dropping, go_on, narrow, set_link, slowed, stand_still
from nsm_sdk.lab.hop import Hop
from nsm_sdk.lab.scenarios.stage import PATIENCE, Mark, Stage, Watched

TARGETS = ("client", "endpoint", "manager", "forwarder", "registry", "link", "manager and endpoint")
FAULTS = ("kill", "stop", "restart", "drop", "slow")
MEANING = {
    "kill": "SIGKILL, started again 1 s later; a link is deleted",
    "stop": "SIGSTOP for 2 s; a link is set down, and stays so",
    "restart": "SIGTERM, and started again at once; a link is set down and up",
    "drop": "nftables drop its packets for 2 s: those of the datapath for client, endpoint and link, else of control",
    "slow": "it gets a seventh of its CPU time for 2 s; a link has too little bandwidth",
}
AWAY = 1.0
LASTS = 2.0
"""How long things are broken, in seconds."""

_FREE = frozenset({"manager", "forwarder", "registry"})
"""Packets do not depend on them: whatever happens to them, none may be lost, and nothing may move."""
_STAYS = frozenset({("client", "kill"), ("client", "stop"), ("client", "slow")}) | {
    (target, fault) for target in ("endpoint", "manager and endpoint") for fault in ("kill", "stop", "slow")
}
"""Cells in which the same holds, because only the program is hurt and not its network."""
_APART = ("descriptors",)


@dataclass(slots=True, kw_only=True)
class Cell:
    """What became of one connection. `detect`, `repair` in seconds, None where nothing was healed."""

    target: str
    fault: str
    lost: tuple[int, int] = (0, 0)
    detect: float | None = None
    repair: float | None = None
    moved: bool = False
    anew: bool = False
    """Whether the client closed it, and made another."""
    connected: bool = False
    """Whether it ended connected, with packets flowing in both directions."""
    left: list[str] = field(default_factory=list)
    """What was there when the client had gone, and had not been before it came."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.connected:
            return "not connected"
        end = "repaired" if self.repair is not None else "kept"
        end = "connected anew" if self.anew else "moved" if self.moved else end
        return f"{end}, {sum(self.lost)} lost" if any(self.lost) else end


async def play_cell(stage: Stage, name: str, target: str, fault: str) -> Cell:
    """Play one cell with a client called `name`, which must be new."""
    cell = Cell(target=target, fault=fault)
    await stage.registered()
    before = await stage.cluster.counts()
    async with stage.client(name) as client:
        mark = client.mark()
        try:
            await _break(stage, client, mark, target, fault)
            await client.flows()
            cell.connected = True
        except NsmError as error:
            cell.wrong.append(f"it ends unconnected: {error}")
        # Those that are just on their way are not lost.
        until = await client.there.settled()
        await client.back.settled()
        healing, healed = client.since(mark, "healing"), client.since(mark, "healed")
        cell.lost = client.there.lost(mark.at, until), client.back.lost(mark.at, until)
        cell.detect = healing[0].at - mark.at if healing else None
        cell.repair = healed[-1].at - healing[0].at if healing and healed else None
        cell.anew = bool(client.since(mark, "closed"))
        cell.moved = client.endpoint != mark.endpoint
    cell.left = await _left(stage, before)
    if cell.left:
        cell.wrong.append(f"left behind: {'; '.join(cell.left)}")
    if target in _FREE or (target, fault) in _STAYS:
        if any(cell.lost):
            cell.wrong.append(f"{sum(cell.lost)} pings were lost although data could flow all the time")
        if cell.moved:
            cell.wrong.append("it moved without need")
    return cell


async def _left(stage: Stage, before: Counts) -> list[str]:
    """What is there more than before; what expires gets its time."""
    left: list[str] = []
    for _ in range(int(PATIENCE * 5)):
        left = (await stage.cluster.counts()).new_since(before, apart=_APART)
        if not left:
            break
        await asyncio.sleep(0.2)
    return left


async def _break(stage: Stage, client: Watched, mark: Mark, target: str, fault: str) -> None:
    """Break it, and take that back; comes back when the client has noticed what it must notice."""
    if target == "link":
        await _break_link(client, mark, fault)
        return
    hops = _hops(stage, client, target)
    match fault:
        case "kill":
            for hop in hops:
                await hop.kill()
            await asyncio.sleep(AWAY)
            for hop in hops:
                await hop.start()
        case "restart":
            for hop in hops:
                await hop.restart()
        case "stop":
            for hop in hops:
                stand_still(hop)
            try:
                await asyncio.sleep(LASTS)
            finally:
                for hop in hops:
                    go_on(hop)
        case "drop" if target == "client":
            async with dropping(client.pod):
                await asyncio.sleep(LASTS)
        case "drop" if target == "endpoint":
            async with dropping(stage.serving(client).pod):
                await client.event(mark, "healed")
        case _:
            async with AsyncExitStack() as stack:
                for hop in hops:
                    await stack.enter_async_context(cut_off(hop) if fault == "drop" else slowed(hop))
                await asyncio.sleep(LASTS)


async def _break_link(client: Watched, mark: Mark, fault: str) -> None:
    match fault:
        case "kill":
            await client.pod.unlink(client.interface)
            await client.event(mark, "healed")
        case "stop":
            await set_link(client.pod, client.interface, up=False)
            await client.event(mark, "healed")
        case "restart":
            await set_link(client.pod, client.interface, up=False)
            await set_link(client.pod, client.interface, up=True)
            # Its routes are gone with the moment in which it was down.
            await client.event(mark, "healed")
        case "drop":
            async with dropping(client.pod, f'iifname "{client.interface}" drop'):
                await asyncio.sleep(LASTS)
        case _:
            async with narrow(client.pod, client.interface):
                await asyncio.sleep(LASTS)


def _hops(stage: Stage, client: Watched, target: str) -> list[Hop]:
    match target:
        case "client":
            return [client.hop]
        case "endpoint":
            return [stage.serving(client).hop]
        case "manager":
            return [stage.node.manager]
        case "forwarder":
            return [stage.node.forwarder]
        case "registry":
            return [stage.cluster.registry]
        case _:
            return [stage.node.manager, stage.serving(client).hop]
