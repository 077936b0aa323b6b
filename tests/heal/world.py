# SPDX-License-Identifier: Apache-2.0
"""A small world for healing: one manager, some endpoints, and datapaths that can be cut.

Does:  stands behind `Connect`: answers requests as hops would, publishes what becomes of connections, dies and comes
       back on demand. `Flows` is a probe that knows which datapaths work.
Place: tests of nsm_sdk.heal, in virtual time.
State: the connections that the manager knows; every call it got, with its time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from nsm_sdk.api import Connection, ConnectionEvent, PathSegment, Request, Selector, Snapshot, State, set_expiry
from nsm_sdk.core import Bound, Call, Element, Next, Runtime, WatchNext
from nsm_sdk.elements import Begin, Connect, Hub, Refresh, UpdatePath
from nsm_sdk.elements.connect import ClientUrl
from nsm_sdk.errors import NoCandidate, NotReached, NsmError, Unavailable
from nsm_sdk.heal import Heal, Probe, Target, Verdict
from nsm_sdk.heal.probes.probe import Cancel, Tell

URL = "inproc://manager"


@dataclass(slots=True, kw_only=True)
class Nse:
    """An endpoint: `serves` requests, is `registered`, its datapath `flows`."""

    name: str
    net: int = 1
    serves: bool = True
    registered: bool = True
    flows: bool = True


@dataclass(slots=True, kw_only=True)
class Seen:
    """One call that reached the manager."""

    at: float
    verb: str
    conn: Connection
    error: str = ""


@dataclass(slots=True, kw_only=True)
class World:
    """The manager and what is behind it. `life` is that of tokens, in seconds; 0: none."""

    endpoints: dict[str, Nse] = field(default_factory=lambda: {"nse-1": Nse(name="nse-1")})
    life: float = 600.0
    up: bool = True
    calls: list[Seen] = field(default_factory=list)
    hub: Hub = field(default_factory=Hub)
    monitor: bool = True
    error: NsmError | None = None
    """What every request gets instead of an answer."""
    refuse: NsmError | None = None
    """What every monitor stream gets."""
    piles: bool = True
    """Endpoints leave foreign addresses in the context, as a polite IPAM does."""
    gate: Callable[[Request], object] | None = None
    memory: list[Connection] = field(default_factory=list)

    def dial(self, url: str) -> Bound:
        """For `Connect`."""
        watch = WatchNext(self.watch) if self.monitor else None
        return Bound(connection=Next(self.request, self.close), monitor=watch)

    def requests(self, conn_id: str = "") -> list[Seen]:
        """Requests that reached the manager."""
        return [seen for seen in self.calls if seen.verb == "request" and conn_id in ("", seen.conn.id)]

    def known(self, conn_id: str) -> Connection | None:
        """The manager's view of a connection of the client."""
        found = self.hub.connections(Selector(path_segments=[PathSegment(name="nsc-1", id=conn_id)]))
        return found[0] if found else None

    async def request(self, call: Call, request: Request) -> Connection:
        """As a manager with a forwarder behind it."""
        seen = Seen(at=call.runtime.clock.now(), verb="request", conn=Snapshot.of(request.connection).connection())
        if not self.up:
            raise NotReached("connection refused")
        self.calls.append(seen)
        try:
            return self._request(call, request)
        except NsmError as error:
            seen.error = error.message
            raise

    def _request(self, call: Call, request: Request) -> Connection:
        if self.gate is not None:
            self.gate(request)
        if self.error is not None:
            raise self.error
        conn = request.connection
        client = conn.path.path_segments[0].id
        known = self.known(client)
        if known is not None and conn.state == State.RESELECT_REQUESTED:
            self.hub.delete(known)
        nse = self._choose(conn.network_service_endpoint_name)
        if not nse.serves:
            raise Unavailable(f"all candidates have failed: {nse.name}: connection refused")
        self._fill(call, conn, nse)
        mine = Snapshot.of(conn).connection()
        mine.id, mine.path.index, mine.state = conn.path.path_segments[1].id, 1, State.UP
        self.hub.update(mine)
        return conn

    def _choose(self, name: str) -> Nse:
        nses = [nse for nse in self.endpoints.values() if nse.registered and name in ("", nse.name)]
        if not nses:
            raise NoCandidate(f"endpoint {name or 'any'} not found")
        return next((nse for nse in nses if nse.serves and nse.flows), nses[0])

    def _fill(self, call: Call, conn: Connection, nse: Nse) -> None:
        client = conn.path.path_segments[0].id
        del conn.path.path_segments[1:]
        conn.path.path_segments.add(name="manager", id=f"m-{client}")
        conn.path.path_segments.add(name=nse.name, id=f"{nse.name}-{client}")
        if self.life:
            for hop in conn.path.path_segments:
                set_expiry(hop, call.runtime.clock.wall() + self.life)
        conn.network_service_endpoint_name = nse.name
        conn.mechanism.type = "KERNEL"
        conn.mechanism.parameters["name"] = "nsm-1"
        context = conn.context.ip_context
        for addresses, own in ((context.src_ip_addrs, 1), (context.dst_ip_addrs, 0)):
            text = f"10.0.{nse.net}.{own}/32"
            if not self.piles:
                del addresses[:]
            if text not in addresses:
                addresses.append(text)

    async def close(self, call: Call, conn: Connection) -> None:
        """Forget it."""
        if not self.up:
            raise NotReached("connection refused")
        self.calls.append(Seen(at=call.runtime.clock.now(), verb="close", conn=Snapshot.of(conn).connection()))
        known = self.known(conn.path.path_segments[0].id)
        if known is not None:
            self.hub.delete(known)

    async def watch(self, call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        """Streams of the present incarnation."""
        if not self.up:
            raise NotReached("connection refused")
        if self.refuse is not None:
            raise self.refuse
        # An empty id in a selector segment stands for any.
        async with aclosing(self.hub.watch(selector)) as stream:
            async for event in stream:
                yield event

    # -- what goes wrong --------------------------------------------------------------------------------------------

    async def kill_manager(self) -> None:
        """Its streams break and it forgets."""
        self.up = False
        self.memory = self.hub.connections(Selector())
        await self.hub.stop()

    async def start_manager(self, *, remembers: bool = False) -> None:
        """Back, with an empty table, or with what it knew."""
        self.hub = Hub()
        if remembers:
            for conn in self.memory:
                self.hub.update(conn)
        self.up = True

    def say(self, conn_id: str, state: State) -> None:
        """The manager publishes another state of a connection."""
        conn = self.known(conn_id)
        assert conn is not None
        conn.state = state
        self.hub.update(conn)

    def kill_nse(self, name: str, *, data: bool = True, registered: bool = True) -> None:
        """Its process dies, and with it (`data`) its end of the datapath; connections go down hop by hop."""
        nse = self.endpoints[name]
        nse.serves, nse.flows, nse.registered = False, nse.flows and not data, registered
        for conn in self.hub.connections(Selector()):
            if conn.network_service_endpoint_name == name:
                conn.state = State.DOWN
                self.hub.update(conn)


class Flows(Probe):
    """Alive while the endpoint of the connection has a datapath. `delay`: seconds that an answer takes."""

    def __init__(self, world: World, *, delay: float = 0.0, events: bool = False) -> None:
        self.world = world
        self.delay = delay
        self.events = events
        self.checks = 0
        self.followers: dict[int, tuple[Target, Tell]] = {}

    def _endpoint(self, target: Target) -> str:
        assert target.snapshot is not None
        return target.snapshot.connection().network_service_endpoint_name

    def verdict(self, target: Target) -> Verdict:
        """What a check would say now."""
        name = self._endpoint(target)
        nse = self.world.endpoints.get(name)
        return Verdict(True) if nse is not None and nse.flows else Verdict(False, f"{name} does not answer")

    def begin(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel:
        self.checks += 1
        verdict = self.verdict(target)
        return runtime.after(self.delay if verdict.alive else timeout, lambda: tell(verdict)).cancel

    def tick(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel | None:
        return None if self.events else self.begin(runtime, target, timeout, tell)

    def follow(self, runtime: Runtime, target: Target, tell: Tell) -> Cancel | None:
        if not self.events:
            return None
        number = len(self.followers) + self.checks * 1_000_000
        while number in self.followers:
            number += 1
        self.followers[number] = (target, tell)
        return lambda: self.followers.pop(number, None) and None

    def cut(self, name: str) -> None:
        """The datapath to the endpoint breaks, and the kernel says so."""
        self.world.endpoints[name].flows = False
        for target, tell in list(self.followers.values()):
            if self._endpoint(target) == name:
                tell(self.verdict(target))


def client(world: World, heal: Heal, *extra: Element, refresh: bool = True) -> list[Element]:
    """The chain of a client."""
    refreshing: list[Element] = [Refresh()] if refresh else []
    return [UpdatePath("nsc-1"), Begin(merges=True), *refreshing, ClientUrl(URL), heal, *extra, Connect(world.dial)]
