# SPDX-License-Identifier: Apache-2.0
"""The stage: a mesh of programs with two endpoints, and a client whose connection is pinged from both ends.

Does:  `staged` starts it all and ends it; `Watched` is a client program, what it says, and the pings along its
       connection, which follow where it moves. `Mark` is a moment from which losses and events are counted.
Place: scenarios of healing and the matrix of faults.
State: a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from nsm_sdk.errors import DeadlineExceeded
from nsm_sdk.lab.cluster import Cluster
from nsm_sdk.lab.counts import ask
from nsm_sdk.lab.mode import PROGRAMS, Mode
from nsm_sdk.lab.node import SERVICE, Node
from nsm_sdk.lab.ping import Flow, flowing
from nsm_sdk.lab.pod import Pod
from nsm_sdk.lab.program import ProgramHop
from nsm_sdk.lab.workload import LabEndpoint

TOKEN_LIFE = 20.0
"""Seconds: short, so that refreshes, and what is spread over them, are seen while one watches."""
CHECK_INTERVAL = 0.2
CHECK_TIMEOUT = 0.3
SETTINGS: Mapping[str, str] = {
    "liveness_check_interval": f"{CHECK_INTERVAL:g}s",
    "liveness_check_timeout": f"{CHECK_TIMEOUT:g}s",
    "request_timeout": "3s",
    "dial_timeout": "1s",
}
"""Of the client."""
PATIENCE = 30.0
"""Seconds that any step may take."""
_PLACED = frozenset({"connected", "healed", "refreshed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A moment in the life of a client. `at`: by the loop's clock."""

    at: float
    events: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Heard:
    """One event line. `at`: when it came, by the loop's clock."""

    at: float
    line: Mapping[str, Any]


class Watched:
    """A client program with one connection, and a ping along it in each direction."""

    def __init__(self, hop: ProgramHop, pod: Pod, pods: Mapping[str, Pod], there: Flow, back: Flow) -> None:
        self.hop = hop
        self.pod = pod
        self.there = there
        self.back = back
        self.heard: list[Heard] = []
        self.now: Mapping[str, Any] = {}
        """What was said of the connection last."""
        self._pods = pods
        self._news = anyio.Event()
        self._placed = anyio.Event()
        hop.told.append(self._told)

    @property
    def endpoint(self) -> str:
        """The endpoint in use."""
        return str(self.now.get("endpoint", ""))

    @property
    def interface(self) -> str:
        """The client's interface."""
        return str(self.now.get("interface", ""))

    @property
    def healing(self) -> bool:
        """Whether the connection is being repaired."""
        last = [one.line["event"] for one in self.heard if one.line["event"] in ("healing", "healed", "connected")]
        return bool(last) and last[-1] == "healing"

    def mark(self) -> Mark:
        """This moment."""
        return Mark(at=asyncio.get_running_loop().time(), events=len(self.heard), endpoint=self.endpoint)

    def since(self, mark: Mark, *kinds: str) -> list[Heard]:
        """Events of these kinds since then."""
        return [one for one in self.heard[mark.events :] if one.line["event"] in kinds]

    async def event(self, mark: Mark, *kinds: str, timeout: float = PATIENCE) -> Heard:
        """The first event of one of these kinds since then; waits for it. DeadlineExceeded when it does not come."""
        with anyio.move_on_after(timeout):
            while True:
                found = self.since(mark, *kinds)
                if found:
                    return found[0]
                await self._news.wait()
        said = ", ".join(one.line["event"] for one in self.heard[mark.events :]) or "nothing"
        raise DeadlineExceeded(
            f"client {self.hop.name} did not say {' or '.join(kinds)} within {timeout:g} s, but {said}",
            hint="see its log",
        )

    async def flows(self, *, timeout: float = PATIENCE) -> None:
        """Wait until nothing is being healed, and packets come back in both directions. DeadlineExceeded otherwise."""
        with anyio.move_on_after(timeout):
            while True:
                there, back = self.there.answered, self.back.answered
                await asyncio.sleep(5 * self.there.interval)
                if not self.healing and self.there.answered > there and self.back.answered > back:
                    return
        raise DeadlineExceeded(
            f"no data flows between {self.hop.name} and {self.endpoint or 'its endpoint'} after {timeout:g} s"
            + (", and it is still being healed" if self.healing else ""),
            hint="see its log",
        )

    async def story(self) -> list[dict[str, Any]]:
        """The journal of the connection, as `nsm explain` gets it."""
        return await ask(self.hop.settings["ADMIN_SOCKET"], f"journal {self.now['id']}")

    def _told(self, line: Mapping[str, Any]) -> None:
        self.heard.append(Heard(asyncio.get_running_loop().time(), line))
        if line["event"] in _PLACED and line.get("src") and line.get("dst"):
            self.now = line
            self._placed.set()
        news, self._news = self._news, anyio.Event()
        news.set()

    async def follow(self) -> None:
        """Point the pings to where the connection is, for ever."""
        while True:
            await self._placed.wait()
            self._placed = anyio.Event()
            src, dst = (self.now[side][0].partition("/")[0] for side in ("src", "dst"))
            await self.there.aim(self.pod.url, src, dst)
            pod = self._pods.get(f"{self.endpoint}")
            if pod is not None:
                await self.back.aim(pod.url, dst, src)


class Stage:
    """A mesh with endpoints that are told apart by their addresses."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.cluster = cluster
        self.node = node
        self.endpoints: dict[str, LabEndpoint] = {}

    async def endpoint(self, name: str) -> LabEndpoint:
        """Start one more endpoint."""
        number = len(self.endpoints) + 1
        made = self.endpoints[name] = await self.node.endpoint(name, prefix=f"172.16.{number}.0/24")
        return made

    async def registered(self, *, timeout: float = PATIENCE) -> None:
        """Wait until the forwarder and every endpoint are registered, again if need be. DeadlineExceeded otherwise."""
        wanted = len(self.endpoints) + 1
        found = -1
        with anyio.move_on_after(timeout):
            while found < wanted:
                found = (await self.cluster.counts()).of("registrations", self.cluster.registry.name)
                await asyncio.sleep(0.05)
            return
        raise DeadlineExceeded(
            f"only {found} of {wanted} registrations stand after {timeout:g} s", hint="see the registry's log"
        )

    def serving(self, client: Watched) -> LabEndpoint:
        """The endpoint that a client uses."""
        return self.endpoints[client.endpoint]

    @asynccontextmanager
    async def client(self, name: str) -> AsyncGenerator[Watched, None]:
        """A client program, connected, and pinged; it leaves gracefully at the end."""
        async with AsyncExitStack() as stack:
            there = await stack.enter_async_context(flowing())
            back = await stack.enter_async_context(flowing())
            pod = await self.node.pod(name)
            stack.push_async_callback(pod.remove)
            hop = self.node.cluster.program(
                "nsc",
                name,
                {
                    "CONNECT_TO": self.node.manager.url,
                    "NETWORK_SERVICES": f"kernel://{SERVICE}/nsm-1",
                    "NETNS": pod.url.removeprefix("file://"),
                    **SETTINGS,
                },
                listens=False,
            )
            pods = {key: one.pod for key, one in self.endpoints.items()}
            watched = Watched(hop, pod, pods, there, back)
            follow = asyncio.create_task(watched.follow(), name=f"follow {name}")
            try:
                start = watched.mark()
                await hop.start()
                await watched.event(start, "connected")
                await watched.flows()
                yield watched
            finally:
                await hop.stop()
                follow.cancel()
                await asyncio.wait([follow])


@asynccontextmanager
async def staged(mode: Mode = PROGRAMS, *, endpoints: int = 2, name: str = "heal") -> AsyncGenerator[Stage, None]:
    """A stage with so many endpoints; everything is gone at the end."""
    async with Cluster(mode, name=name, token_life=TOKEN_LIFE) as cluster:
        stage = Stage(cluster, await cluster.node("node-1"))
        for number in range(endpoints):
            await stage.endpoint(f"nse-{number + 1}")
        yield stage
