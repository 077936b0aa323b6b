# SPDX-License-Identifier: Apache-2.0
"""A whole chain under a state machine: request, refresh, expiry, loss of peers, close, in any order.

Does:  hypothesis drives a client's connections through a mesh whose hops crash, come back, and whose clients vanish.
       What is connected keeps its address and answers pings, addresses never belong to two, and when everything has
       been closed or has expired, nothing is left.
Place: a whole mesh in one process, in virtual time, with interfaces of a kernel in memory.
State: the model: what should be connected.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nsm_sdk.api import Connection
from nsm_sdk.errors import NsmError
from nsm_sdk.lab import MEMORY, Cluster, LabClient, Node, ServedHop
from nsm_sdk.testing import VirtualLoop, settled
from tests.mesh.modes import PASSING

T = TypeVar("T")
LIFE = 60.0
LONG = LIFE / 5
"""Seconds of outage that every token survives: refreshes come before two fifths of its life have passed."""
BACK = 6.0
"""Seconds in which what is registered is registered again."""
RECOVERS = 25.0
"""Seconds in which every connection has been refreshed, when nothing is down."""
NAMES = ("a", "b", "c")
HOPS = ("registry", "nsmgr-node-1", "forwarder-node-1", "nse-1")


class MeshMachine(RuleBasedStateMachine):
    """`up`: connections that must work; `doubtful`: those whose last call failed; both by client."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=functools.partial(VirtualLoop))
        self.up: dict[str, Connection] = {}
        self.doubtful: dict[str, Connection] = {}
        self.outage: dict[str, float] = {}
        """Seconds during which some hop was down since the connection was refreshed for certain."""
        self.down: set[str] = set()

    def run(self, fn: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self.runner.run(fn())

    @initialize()
    def build(self) -> None:
        async def main() -> None:
            self.cluster = Cluster(MEMORY, token_life=LIFE, orphan_timeout=LIFE, dial_timeout=0.2)
            await self.cluster.__aenter__()
            self.node: Node = await self.cluster.node("node-1")
            await self.node.endpoint("nse-1", prefix="10.0.0.0/29")
            self.clients: dict[str, LabClient] = {}
            for name in NAMES:
                self.clients[name] = await self.node.client(name)
                await self.clients[name].close(await self.clients[name].request(f"kernel://icmp-responder/{name}"))
            await settled()
            self.idle = await self.cluster.counts()

        self.run(main)

    def teardown(self) -> None:
        async def main() -> None:
            try:
                await self.everything_ends()
            finally:
                await self.cluster.aclose()

        try:
            if hasattr(self, "cluster"):
                self.run(main)
        finally:
            self.runner.close()

    async def everything_ends(self) -> None:
        for name in sorted(self.down):
            await self.start(name)
        for client in self.clients.values():
            if not client.alive:
                await client.restart()
        for name, conn in {**self.doubtful, **self.up}.items():
            await self.clients[name].close(conn)
        # Leases of what could not be told end with the tokens; orphans a little later.
        await asyncio.sleep(4 * LIFE)
        await settled()
        left = (await self.cluster.counts()).new_since(self.idle, apart=PASSING)
        assert not left, "; ".join(left)

    async def start(self, name: str) -> None:
        await self.cluster.restart(name)
        hop = self.cluster.hops[name]
        assert isinstance(hop, ServedHop)
        self.down.discard(name)
        if "registry" not in self.down and "nsmgr-node-1" not in self.down:
            await hop.registered()
        # Whoever is registered comes back after the manager or the registry does.
        await asyncio.sleep(BACK)
        self.passed(BACK, True)

    def passed(self, seconds: float, outage: bool) -> None:
        """Time has passed; a connection that could not be refreshed for long is for nobody to count on."""
        for name in list(self.up):
            if outage:
                self.outage[name] = self.outage.get(name, 0.0) + seconds
            elif seconds >= RECOVERS:
                self.outage[name] = 0.0
            if self.outage.get(name, 0.0) > LONG:
                self.doubtful[name] = self.up.pop(name)

    @rule(name=st.sampled_from(NAMES))
    def request(self, name: str) -> None:
        """A first request, or a refresh by the application."""

        async def main() -> None:
            client = self.clients[name]
            if not client.alive:
                await client.restart()
            known = self.up.get(name) or self.doubtful.get(name)
            try:
                if known is not None:
                    conn = await client.refresh(known)
                else:
                    conn = await client.request(f"kernel://icmp-responder/{name}", id=f"{name}-id")
            except NsmError:
                assert self.down or name in self.doubtful
                return
            self.doubtful.pop(name, None)
            self.up[name] = conn
            self.outage[name] = 0.0
            assert (await client.ping(conn)).ok

        self.run(main)

    @rule(name=st.sampled_from(NAMES))
    def close(self, name: str) -> None:
        async def main() -> None:
            conn = self.up.pop(name, None) or self.doubtful.pop(name, None)
            if not self.clients[name].alive:
                await self.clients[name].restart()
            if conn is None:
                await self.clients[name].close(Connection(id=f"{name}-id"))
            else:
                await self.clients[name].close(conn)

        self.run(main)

    @rule(name=st.sampled_from(NAMES))
    def client_vanishes(self, name: str) -> None:
        """The application crashes; its connection expires unless it comes back in time."""

        async def main() -> None:
            await self.clients[name].kill()

        conn = self.up.pop(name, None)
        if conn is not None:
            self.doubtful[name] = conn
        self.run(main)

    @precondition(lambda self: len(self.down) < 2)
    @rule(hop=st.sampled_from(HOPS))
    def hop_crashes(self, hop: str) -> None:
        async def main() -> None:
            await self.cluster.kill(hop)

        if hop not in self.down:
            self.run(main)
            self.down.add(hop)

    @precondition(lambda self: bool(self.down))
    @rule()
    def hop_comes_back(self) -> None:
        self.run(lambda: self.start(sorted(self.down)[0]))

    @rule(seconds=st.sampled_from([0.5, 5.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        async def main() -> None:
            await asyncio.sleep(seconds)

        self.run(main)
        self.passed(seconds, bool(self.down))

    @rule()
    def tokens_expire(self) -> None:
        """Longer than any token lives: what nobody refreshes is gone."""

        async def main() -> None:
            await asyncio.sleep(2 * LIFE)
            await settled()

        self.run(main)
        self.passed(2 * LIFE, bool(self.down))

    @invariant()
    def what_is_up_answers(self) -> None:
        if not self.up:
            return

        async def main() -> None:
            for name, conn in self.up.items():
                assert (await self.clients[name].ping(conn)).ok, name
            taken = [address for conn in self.up.values() for address in conn.context.ip_context.src_ip_addrs]
            if "nse-1" not in self.down:
                assert len(taken) == len(set(taken)), taken

        self.run(main)


TestMesh = MeshMachine.TestCase
TestMesh.settings = settings(
    max_examples=25,
    report_multiple_bugs=False,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
