# SPDX-License-Identifier: Apache-2.0
"""The requests of the recording `errors`, made at a mesh that is all ours: whose fault it was reaches the client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from nsm_sdk import chains
from nsm_sdk.api import KERNEL, Connection, Mechanism, NetworkService, NetworkServiceEndpoint, Request
from nsm_sdk.api.tokens import subject
from nsm_sdk.core import Call, Element, Next, Role, Running
from nsm_sdk.errors import NsmError, Status
from nsm_sdk.mechanisms import KernelServer, Mechanisms, SimulatedDatapath
from nsm_sdk.security import TokenSource
from nsm_sdk.transport import Dialer, listen
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import identity
from tests.wire.replay.script import Exchange, Script

pytestmark = needs_fixtures

ANY = "tcp://127.0.0.1:0"


class Refuses(Element):
    """An endpoint's own reason."""

    def __init__(self, text: str, status: Status = Status.UNKNOWN) -> None:
        self.text = text
        self.status = status

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        raise NsmError(self.text, status=self.status)


class Sleeps(Element):
    """Answers too late."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        await anyio.sleep_forever()
        return request.connection


class Expired:
    """Says who it is, but until when has passed."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    def token(self, peer: str) -> tuple[str, float]:
        return self._tokens.token(peer)[0], 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the client is to read."""

    status: Status = Status.OK
    hop: str = ""
    trail: tuple[str, ...] = ()
    says: str = field(default="", compare=False)


VIA_MANAGER = ("nsmgr-1",)
VIA_FORWARDER = ("nsmgr-1", "forwarder-1")
EXPECTED: dict[str, Outcome] = {
    "e1": Outcome(status=Status.UNAVAILABLE, hop="nsmgr-1", says="not registered"),
    "e2": Outcome(status=Status.UNAVAILABLE, hop="forwarder-1", trail=VIA_MANAGER, says="no endpoint"),
    "e3": Outcome(status=Status.UNAVAILABLE, hop="nsmgr-1", says="no match"),
    "e4": Outcome(status=Status.UNAVAILABLE, hop="nsmgr-1", says="no forwarder"),
    "e5": Outcome(status=Status.UNKNOWN, hop="nse-refuses", trail=VIA_FORWARDER, says="the endpoint is busy"),
    "e6": Outcome(
        status=Status.RESOURCE_EXHAUSTED, hop="nse-refuses-status", trail=VIA_FORWARDER, says="no addresses left"
    ),
    "e7": Outcome(status=Status.PERMISSION_DENIED, hop="nse-denied", trail=VIA_FORWARDER, says="no sufficient"),
    "e8": Outcome(status=Status.UNKNOWN, hop="forwarder-1", trail=VIA_MANAGER, says="first refuses"),
    "e9": Outcome(status=Status.UNAVAILABLE, hop="forwarder-1", trail=VIA_MANAGER, says="nobody answers"),
    "e10": Outcome(status=Status.DEADLINE_EXCEEDED, says=""),
    "e11": Outcome(status=Status.UNAVAILABLE, hop="forwarder-1", trail=VIA_MANAGER, says="nse-unknown"),
    "e12": Outcome(),  # it is used all the same, and our forwarder offers the mechanism that it wants
    "e13": Outcome(status=Status.FAILED_PRECONDITION, hop="forwarder-1", trail=VIA_MANAGER, says="MEMIF"),
    "e14": Outcome(status=Status.FAILED_PRECONDITION, hop="nse-kernel", trail=VIA_FORWARDER, says="none"),
    "e15": Outcome(status=Status.INVALID_ARGUMENT, hop="forwarder-1", trail=VIA_MANAGER, says="MEMIF"),
    "e16": Outcome(status=Status.INVALID_ARGUMENT, hop="nsmgr-1", says="no network service"),
    "17": Outcome(),
    "18": Outcome(status=Status.INVALID_ARGUMENT, hop="nsmgr-1", says="no network service"),
    "e19": Outcome(status=Status.UNKNOWN, hop="nse-refuses", trail=VIA_FORWARDER, says="the endpoint is busy"),
    "e20": Outcome(status=Status.UNAUTHENTICATED, hop="nsmgr-1", says="expire"),
    "e21": Outcome(),  # their forwarder was made to send an expired token
    "good": Outcome(),
}
"""By connection id, or the place in the recording where the client makes the id."""

ENDPOINTS: dict[str, tuple[str, tuple[Element, ...]]] = {
    "nse-refuses": ("refuses", (Refuses("the endpoint is busy"),)),
    "nse-refuses-status": ("refuses-status", (Refuses("no addresses left", Status.RESOURCE_EXHAUSTED),)),
    "nse-denied": ("denied", (Refuses("no sufficient privileges", Status.PERMISSION_DENIED),)),
    "nse-two-1": ("two-refuse", (Refuses("first refuses"),)),
    "nse-two-2": ("two-refuse", (Refuses("second refuses"),)),
    "nse-slow": ("slow", (Sleeps(),)),
    "nse-expired": ("expired", ()),
    "nse-ok": ("ok", ()),
}


@asynccontextmanager
async def mesh(services: dict[str, NetworkService]) -> AsyncIterator[tuple[Running, Running]]:
    """Registry, manager, forwarder and all endpoints over sockets; a client, and one whose token has expired."""
    async with AsyncExitStack() as stack:

        async def up(role: Role, *, quiet: bool = False) -> Running:
            listens = [] if quiet else [listen(ANY)]
            return await stack.enter_async_context(role.serving(listen=listens))

        tokens, _ = identity("registry")
        registry = await up(chains.registry("registry", tokens=tokens, services=[tokens]))
        assert registry.bound.ns is not None
        for service in services.values():
            await registry.bound.ns.register(registry.call(timeout=5), service)
        tokens, dial = identity("nsmgr-1")
        urls: list[str] = []
        manager = await up(
            chains.nsmgr(
                "nsmgr-1",
                url=lambda: urls[0],
                dial=dial,
                tokens=tokens,
                registry=registry.urls[0],
                services=[tokens, dial],
            )
        )
        urls.append(manager.urls[0])

        async def register(name: str, service: str, url: str) -> None:
            tokens, dial = identity(name)
            role = chains.registrant(name, manager=manager.urls[0], dial=dial, services=[tokens, dial])
            running = await up(role, quiet=True)
            entry = NetworkServiceEndpoint(name=name, network_service_names=[service], url=url)
            entry.network_service_labels[service].labels["p2p"] = "true"
            assert running.bound.nse is not None
            await running.bound.nse.register(running.call(timeout=5), entry)

        tokens, dial = identity("forwarder-1")
        forwarder = await up(
            chains.forwarder(
                "forwarder-1",
                manager=manager.urls[0],
                dial=dial,
                tokens=tokens,
                datapath=SimulatedDatapath(),
                services=[tokens, dial],
            )
        )
        await register("forwarder-1", "forwarder", forwarder.urls[0])
        kernel = Mechanisms({KERNEL: KernelServer(namespace="file:///run/netns/somewhere")})
        for name, (offered, elements) in {**ENDPOINTS, "nse-kernel": ("kernel-only", (kernel,))}.items():
            tokens, dial = identity(name)
            running = await up(chains.nse(name, *elements, tokens=tokens, services=[tokens, dial]))
            await register(name, offered, running.urls[0])
        await register("nse-dead", "dead", "tcp://127.0.0.1:1")

        tokens, dial = identity("nsc-1")
        client = await up(chains.nsc("nsc-1", manager=manager.urls[0], dial=dial, services=[tokens, dial]), quiet=True)
        late = Dialer(Expired(tokens))
        role = chains.nsc("nsc-1", manager=manager.urls[0], dial=late, services=[late])
        yield client, await up(role, quiet=True)


def recorded() -> tuple[dict[str, NetworkService], dict[str, Exchange]]:
    """The services that were registered, and the client's requests by connection id or place."""
    script = Script("errors")
    services = {
        one.request.name: one.request
        for one in script.exchanges.values()
        if one.method.name == "Register" and isinstance(one.request, NetworkService)
    }
    requests: dict[str, Exchange] = {}
    for one in script.calls_of("nsc-1"):
        if one.method.name == "Request":
            conn_id = one.request.connection.id
            requests[conn_id if conn_id not in script.generated else str(len(requests) + 1)] = one
    return services, requests


async def test_the_hop_that_failed_reaches_the_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "nsm_sdk")
    services, requests = recorded()
    assert list(EXPECTED) == list(requests)
    found: dict[str, Outcome] = {}
    texts: dict[str, str] = {}
    async with mesh(services) as (client, late):
        for name, exchange in requests.items():
            running = late if name == "e20" else client
            asked = Request.FromString(exchange.request.SerializeToString())
            asked.connection.ClearField("path")
            if name.isdigit():
                asked.connection.id = ""
            chain = running.bound.connection
            assert chain is not None
            try:
                conn = await chain.request(running.call(timeout=exchange.timeout or 5.0), asked)
            except NsmError as error:
                found[name] = Outcome(status=error.status, hop=error.hop, trail=error.trail)
                texts[name] = f"{error} {error!r}"
            else:
                found[name] = Outcome()
                assert [subject(hop.token).rpartition("/")[2] for hop in conn.path.path_segments] == [
                    hop.name for hop in conn.path.path_segments
                ]
                await chain.close(running.call(timeout=5), conn)
    for name, text in texts.items():
        assert EXPECTED[name].says in text
        assert "eyJ" not in text
    # Who runs out of time first is a matter of milliseconds.
    assert found.pop("e10").status is Status.DEADLINE_EXCEEDED
    assert found == {name: outcome for name, outcome in EXPECTED.items() if name != "e10"}


def test_the_mechanism_of_the_recording_is_as_the_table_says() -> None:
    _, requests = recorded()
    assert requests["e13"].request.mechanism_preferences[0].type == "MEMIF"
    assert requests["e15"].request.connection.mechanism == Mechanism(cls="LOCAL", type="MEMIF")
