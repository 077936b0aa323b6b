# SPDX-License-Identifier: Apache-2.0
"""Days of random trouble in a whole mesh, in virtual time.

Does:  many connections of one client live through hours in which the registry, the manager, the forwarder, endpoints
       and datapaths break and come back at random, repeatably. Afterwards it says what is not as it must be: a
       connection lost that had an endpoint to go to, healing without a cause, anything left over.
Place: tests, `python -m benchmarks.chaos`. Needs a virtual loop.
State: the faults, and who was where.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import dataclass, field

from nsm_sdk.api import Snapshot
from nsm_sdk.core import Runtime
from nsm_sdk.heal import Entry, Happening, Heal, Journal, Kind, Phase, Probe, Target, Verdict, Why, story
from nsm_sdk.heal.probes.probe import ALIVE, Cancel, Tell
from nsm_sdk.lab.cluster import Cluster
from nsm_sdk.lab.hop import Hop
from nsm_sdk.lab.node import SERVICE, Node
from nsm_sdk.lab.workload import LabClient, LabEndpoint

HOUR = 3600.0
BROKEN = 60.0
CALM = 1200.0
"""Mean seconds until the next turn, while something is broken and while nothing is."""
QUIET = 2 * HOUR
"""Without faults at the end: longer than any attempt is put off."""
AFTER = 60.0
"""Seconds after a repair in which its fault may still be noticed: registrations come back, calls run out of time."""
PROMPT = 5.0
"""Within so many seconds a connection moves while everything on the way to another endpoint is well."""
ENDPOINTS = 4

_PASSING = ("descriptors", "timers", "watchers", "calls", "tasks (candidates)")
"""What a mesh has more of once it has been used, or after a crash, without being any connection's."""
_CONTROL = frozenset({"manager", "forwarder", "registry", "process", "gone"})
_WAY = frozenset({"manager", "forwarder", "registry"})
CAUSES = {
    Why.DATA: frozenset({"cut", "gone"}),
    Why.DOWN: frozenset({"forwarder", "process", "gone", "manager"}),
    Why.LOST: frozenset({"manager"}),
    Why.MISSING: frozenset({"manager"}),
    Why.REFRESH: _CONTROL,
    Why.ORDER: _CONTROL,
}
"""What must have been broken when healing began, by the reason that the journal gives."""


class Cuts(Probe):
    """Hears at once when the datapath of an endpoint is cut."""

    def __init__(self) -> None:
        self.cut: set[str] = set()
        self.followers: dict[int, tuple[Target, Tell]] = {}
        self._count = 0

    def verdict(self, target: Target) -> Verdict:
        """What a check says now."""
        assert target.snapshot is not None
        name = target.snapshot.connection().network_service_endpoint_name
        return Verdict(False, f"{name} is cut off") if name in self.cut else ALIVE

    def begin(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel:
        return runtime.after(0.001, lambda: tell(self.verdict(target))).cancel

    def tick(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel | None:
        return None

    def follow(self, runtime: Runtime, target: Target, tell: Tell) -> Cancel | None:
        self._count += 1
        number = self._count
        self.followers[number] = (target, tell)
        return lambda: self.followers.pop(number, None) and None

    def cut_off(self, name: str) -> None:
        """From now on no packet comes back from that endpoint."""
        self.cut.add(name)
        for target, tell in list(self.followers.values()):
            if (verdict := self.verdict(target)).alive is False:
                tell(verdict)


@dataclass(slots=True, kw_only=True)
class Fault:
    """Something that was broken for a time."""

    what: str
    name: str = ""
    since: float
    until: float = math.inf

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether it may have been noticed between the two times."""
        return self.since <= end and begin <= self.until + AFTER


@dataclass(slots=True)
class Report:
    """What came out. `wrong` is empty when everything is as it must be."""

    faults: Counter[str] = field(default_factory=Counter)
    heals: int = 0
    moves: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """What has become of one connection; journals forget the beginning of a long story."""

    endpoint: str = ""
    """Where the last healing found it."""
    healings: int = 0
    heals: int = 0
    moves: int = 0


class Chaos:
    """One mesh, one client with many connections; the endpoint `nse-0` always stays well."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.dice = random.Random(seed)
        self.probe = Cuts()
        self.heal = Heal(self.probe, seed=seed)
        self.faults: list[Fault] = []
        self.now: dict[str, Snapshot] = {}
        """Each connection as it was answered last."""
        self._open: dict[str, Fault] = {}
        self._endpoints: dict[str, LabEndpoint] = {}
        self._records: dict[str, Record] = {}
        self._wrong: list[str] = []
        self.heal.happenings.told.append(self._told)
        self.heal.journals.observers.append(self._noted)

    def _told(self, happening: Happening) -> None:
        if happening.snapshot is not None:
            self.now[happening.id] = happening.snapshot

    def _noted(self, journal: Journal, entry: Entry) -> None:
        """Whether what a journal says is explained by what was broken just then."""
        if entry.kind not in (Kind.HEALING, Kind.HEALED):
            return
        record = self._records.setdefault(journal.id, Record())
        if entry.kind == Kind.HEALING:
            record.healings += 1
            record.endpoint = self._at(journal.id)
            if not self._caused(entry):
                self._wrong.append(f"{journal.id} was healed without a cause: {entry}\n{story(journal)}")
            return
        record.heals += 1
        record.moves += bool(entry.moved)
        began = entry.at - (entry.repair or 0.0)
        if entry.at - began > PROMPT and not self._waits(record.endpoint, began, entry.at):
            self._wrong.append(f"{journal.id} was healed late: {entry}\n{story(journal)}")
        if entry.moved and not self._troubled(record.endpoint, began, entry.at):
            self._wrong.append(f"{journal.id} left {record.endpoint}, which was well: {entry}\n{story(journal)}")

    def _at(self, conn_id: str) -> str:
        return self.now[conn_id].connection().network_service_endpoint_name

    async def live(self, count: int, hours: float, *, faults: bool = True) -> Report:
        """The story; answers what came out."""
        loop = asyncio.get_running_loop()
        node = await self.cluster.node("node-1")
        for number in range(ENDPOINTS):
            name = f"nse-{number}"
            self._endpoints[name] = await node.endpoint(name, prefix=f"10.{number}.0.0/16")
        client = await node.client("nsc-1", self.heal)
        await asyncio.sleep(1.0)
        before = await self.cluster.counts()
        conns = [await self._connected(client, f"c{number}") for number in range(count)]
        end = loop.time() + hours * HOUR
        while faults and loop.time() < end:
            await self._turn(node, loop.time())
            await asyncio.sleep(self.dice.expovariate(1 / (BROKEN if self._open else CALM)))
        for key in list(self._open):
            await self._repair(node, key, loop.time())
        await asyncio.sleep(max(end - loop.time(), 0.0) + QUIET)
        report = Report(faults=Counter(fault.what for fault in self.faults), wrong=self._wrong)
        for conn_id in conns:
            self._judge(conn_id, report)
        for conn_id in conns:
            await client.close(self.now[conn_id].connection())
        await asyncio.sleep(60)
        left = (await self.cluster.counts()).new_since(before, apart=_PASSING)
        report.wrong += [f"left behind: {what}" for what in left]
        if self.probe.followers:
            report.wrong.append(f"{len(self.probe.followers)} are still watched")
        return report

    async def _connected(self, client: LabClient, conn_id: str) -> str:
        await client.request(f"kernel://{SERVICE}", id=conn_id)
        # One after the other, as in life, so that refreshes are spread.
        await asyncio.sleep(self.dice.random())
        return conn_id

    # -- what breaks ------------------------------------------------------------------------------------------------

    async def _turn(self, node: Node, now: float) -> None:
        """Break something, or repair it."""
        what = self.dice.choice(("manager", "forwarder", "registry", "process", "gone", "cut"))
        name = f"nse-{self.dice.randrange(1, ENDPOINTS)}" if what in ("process", "gone", "cut") else ""
        # An endpoint breaks in one way at a time.
        key = name or what
        if key in self._open or (self._open and self.dice.random() < 0.6):
            await self._repair(node, self.dice.choice(sorted(self._open)), now)
            return
        self._open[key] = fault = Fault(what=what, name=name, since=now)
        self.faults.append(fault)
        if what in ("cut", "gone"):
            self._cut_off(name)
        if what != "cut":
            await self._hop(node, fault).kill()

    def _cut_off(self, name: str) -> None:
        """Every connection that is there and well has to notice at once."""
        there = [
            (conn_id, self._records.setdefault(conn_id, Record()).healings)
            for conn_id in self.now
            if self._at(conn_id) == name and self._phase(conn_id) is Phase.WATCHING
        ]
        self.probe.cut_off(name)
        for conn_id, healings in there:
            if self._records[conn_id].healings == healings:
                self._wrong.append(f"{conn_id} has not noticed that {name} is cut off")

    def _phase(self, conn_id: str) -> Phase | None:
        standing = self.heal.standing(conn_id)
        return None if standing is None else standing.phase

    async def _repair(self, node: Node, key: str, now: float) -> None:
        fault = self._open.pop(key)
        fault.until = now
        self.probe.cut.discard(fault.name)
        if fault.what != "cut":
            await self._hop(node, fault).restart()

    def _hop(self, node: Node, fault: Fault) -> Hop:
        match fault.what:
            case "manager":
                return node.manager
            case "forwarder":
                return node.forwarder
            case "registry":
                return self.cluster.registry
            case _:
                return self._endpoints[fault.name].hop

    # -- what came out ----------------------------------------------------------------------------------------------

    def _judge(self, conn_id: str, report: Report) -> None:
        journal, standing = self.heal.journals.get(conn_id), self.heal.standing(conn_id)
        if journal is None or standing is None:
            report.wrong.append(f"{conn_id} is gone")
            return
        record = self._records.get(conn_id, Record())
        report.heals += record.heals
        report.moves += record.moves
        if (journal.heals, journal.moves, record.healings) != (record.heals, record.moves, record.heals):
            report.wrong.append(f"the journal of {conn_id} counts otherwise: {record}\n{story(journal)}")
        endpoint = self._at(conn_id)
        if standing.phase is not Phase.WATCHING:
            report.wrong.append(f"{conn_id} is {standing.phase} in the end\n{story(journal)}")
        if endpoint not in self._endpoints or not self._endpoints[endpoint].alive:
            report.wrong.append(f"{conn_id} ends at {endpoint or 'no endpoint'}, which is not there\n{story(journal)}")

    def _caused(self, entry: Entry) -> bool:
        causes = CAUSES[Why(entry.why)]
        return any(fault.what in causes and fault.overlaps(entry.at, entry.at) for fault in self.faults)

    def _waits(self, name: str, begin: float, end: float) -> bool:
        """Whether there was something to wait for: hops on the way to every endpoint, or a process whose data flows."""
        return any(
            fault.overlaps(begin, end)
            for fault in self.faults
            if fault.what in _WAY or (fault.what == "process" and fault.name == name)
        )

    def _troubled(self, name: str, begin: float, end: float) -> bool:
        """Whether that endpoint was in trouble between the two times."""
        return any(fault.name == name and fault.overlaps(begin, end) for fault in self.faults)
