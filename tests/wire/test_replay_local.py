# SPDX-License-Identifier: Apache-2.0
"""One node, registered, connected, refreshed, closed: each hop of the recording is ours in turn."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict

from nsm_sdk import Client, OpenConnection, chains
from nsm_sdk.api import KERNEL, Connection, Mechanism, Request
from nsm_sdk.ipam import PointToPointIpam
from nsm_sdk.security import Insecure
from tests.fixtures import needs_fixtures
from tests.wire.replay.compare import differences, plain
from tests.wire.replay.hops import Registrant, client, endpoint, forwarder, identity, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

RECORDING = "local-request-close"
NODE = {"NODE_NAME": "node-1", "POD_NAME": "pod-1", "CLUSTER_NAME": "cluster-1"}


async def test_the_registry() -> None:
    stage = Stage(RECORDING, "registry")
    tokens, _ = identity("registry")
    async with stage.set(), stage.playing(chains.registry("registry", tokens=tokens, services=[tokens])):
        await stage.play()
    stage.check()


async def test_the_manager() -> None:
    stage = Stage(RECORDING, "nsmgr-1")
    async with stage.set(), stage.playing(manager(stage, environment=NODE)):
        await stage.play()
    stage.check()


async def test_the_forwarder() -> None:
    # The recorded forwarder makes no interface, and so speaks of no mechanism.
    stage = Stage(RECORDING, "forwarder-1", ignore=("mechanism", "mechanismPreferences", "metrics"))
    async with stage.set(), stage.playing(forwarder(stage)), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions())
    stage.check()


async def test_the_endpoint() -> None:
    stage = Stage(RECORDING, "nse-1")
    role = endpoint(stage, PointToPointIpam("172.16.0.96/27"))
    async with stage.set(), stage.playing(role), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions())
    stage.check()


async def test_the_client() -> None:
    stage = Stage(RECORDING, "nsc-1")
    async with stage.set(), stage.playing(client(stage)) as running:
        chain = running.bound.connection
        assert chain is not None
        opened: list[Connection] = []
        labels = {"app": "client"}
        preferences = [Mechanism(cls="LOCAL", type=KERNEL)]

        async def first() -> None:
            request = Request(
                connection=Connection(id="conn-1", network_service="my-service", labels=labels),
                mechanism_preferences=preferences,
            )
            opened.append(await chain.request(running.call(timeout=10), request))

        async def refresh() -> None:
            request = Request(connection=opened[-1], mechanism_preferences=preferences)
            opened.append(await chain.request(running.call(timeout=10), request))

        async def close() -> None:
            await chain.close(running.call(timeout=10), opened[-1])

        await stage.play(actions={11: first, 25: refresh, 37: close})
        results = [one for one in stage.script.results if one["from"] == "nsc-1" and "json" in one]
        assert len(results) == len(opened) == 2
        for recorded, ours in zip(results, opened, strict=True):
            theirs = stage.translation.here(ParseDict(recorded["json"], Connection()))
            assert differences(plain(theirs), plain(ours)) == []
    stage.check()


async def test_the_public_client() -> None:
    # The recorded client asks for a kernel interface and names neither it nor its namespace.
    stage = Stage(RECORDING, "nsc-1", ignore=("parameters",))
    async with stage.set():
        identity = Insecure("nsc", "nsc-1", subject="spiffe://example.org/nsc-1")
        client = Client(stage.manager.url, name="nsc-1", identity=identity)
        await client.start(clock=stage.clock)
        opened: list[OpenConnection] = []

        async def first() -> None:
            request = Request(
                connection=Connection(id="conn-1", network_service="my-service", labels={"app": "client"}),
                mechanism_preferences=[Mechanism(cls="LOCAL", type=KERNEL)],
            )
            opened.append(await client.open(request))

        async def refresh() -> None:
            await opened[0].refresh()

        try:
            async with stage.playing_at(""):
                await stage.play(actions={11: first, 25: refresh, 37: client.stop})
        finally:
            await client.stop()
    assert opened[0].src == ["172.16.0.97/32"]
    assert opened[0].path == ["nsc-1", "nsmgr-1", "forwarder-1", "nse-1"]
    stage.check()
