# SPDX-License-Identifier: Apache-2.0
"""Our hops, under the names of recorded ones.

Does:  makes the roles that stand in for recorded hops, from the recipes and with the recorded identities.
Place: what a stage is given to play.
State: none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from nsm_sdk import chains
from nsm_sdk.api import NetworkServiceEndpoint
from nsm_sdk.core import Element, Role, Running
from nsm_sdk.mechanisms import SimulatedDatapath
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.transport import Dialer
from tests.wire.replay.stage import PATIENCE, Action, Stage

TOKEN_LIFE = 3600.0
"""Seconds; as recorded."""
LIFE = 60.0
"""Seconds an endpoint lives in the recordings."""


def identity(name: str) -> tuple[TokenGenerator, Dialer]:
    """Who a hop is, and how it calls others."""
    source = Insecure("hop", name, subject=f"spiffe://example.org/{name}")
    tokens = TokenGenerator(source, max_lifetime=TOKEN_LIFE)
    return tokens, Dialer(tokens, dial_timeout=0.2)


def manager(stage: Stage, *, environment: Mapping[str, str] | None = None) -> Role:
    """Our manager, with the recorded registry."""
    tokens, dial = identity(stage.hop)
    return chains.nsmgr(
        stage.hop,
        url=lambda: stage.url,
        dial=dial,
        tokens=tokens,
        registry=stage.registry.url,
        longest=LIFE,
        environment=environment,
        services=[tokens, dial],
    )


def forwarder(stage: Stage) -> Role:
    """Our forwarder, that makes no interface, as the recorded one."""
    tokens, dial = identity(stage.hop)
    return chains.forwarder(
        stage.hop,
        manager=stage.manager.url,
        dial=dial,
        tokens=tokens,
        datapath=SimulatedDatapath(),
        services=[tokens, dial],
    )


def endpoint(stage: Stage, *elements: Element) -> Role:
    """Our endpoint."""
    tokens, dial = identity(stage.hop)
    return chains.nse(stage.hop, *elements, tokens=tokens, services=[tokens, dial])


def client(stage: Stage, *, heal: Sequence[Element] = ()) -> Role:
    """Our client, that makes each request once."""
    tokens, dial = identity(stage.hop)
    return chains.nsc(stage.hop, manager=stage.manager.url, dial=dial, heal=heal, services=[tokens, dial])


class Registrant:
    """The side of a forwarder or an endpoint that registers it with its manager."""

    def __init__(self, stage: Stage) -> None:
        tokens, dial = identity(stage.hop)
        self.role = chains.registrant(stage.hop, manager=stage.manager.url, dial=dial, services=[tokens, dial])
        self._stage = stage
        self._entry = NetworkServiceEndpoint()
        self._running: Running | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Registrant]:
        async with self.role.serving(clock=self._stage.clock) as self._running:
            yield self

    def registers(self, number: int) -> Action:
        """What has led to recorded call `number`: register what was registered then, at our address."""

        async def act() -> None:
            assert self._running is not None
            nse = self._running.bound.nse
            assert nse is not None
            entry = self._stage.translation.here(self._stage.script.exchanges[number].request)
            self._entry = await nse.register(self._running.call(timeout=PATIENCE), entry)

        return act

    def actions(self) -> dict[int, Action]:
        """All registrations that are recorded of this hop, and the unregistrations."""
        found: dict[int, Action] = {}
        for one in self._stage.script.calls_of(self._stage.hop):
            if one.method.name == "Register":
                found[one.number] = self.registers(one.number)
            elif one.method.name == "Unregister":
                found[one.number] = self.unregister
        return found

    async def unregister(self) -> None:
        """Take it back."""
        assert self._running is not None
        nse = self._running.bound.nse
        assert nse is not None
        await nse.unregister(self._running.call(timeout=PATIENCE), self._entry)
