# SPDX-License-Identifier: Apache-2.0
"""Recordings replayed with our programs, started from a command line, in the place of recorded hops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fixtures import needs_fixtures
from tests.programs.processes import Mesh, Process
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

NODE = {"NODE_NAME": "node-1", "POD_NAME": "pod-1", "CLUSTER_NAME": "cluster-1"}
NO_MECHANISM = ("mechanism", "mechanismPreferences", "metrics")
"""Recorded forwarders and endpoints speak of no mechanism."""
LISTEN = "tcp://127.0.0.1:0"


@asynccontextmanager
async def started(
    stage: Stage, role: str, env: dict[str, str] | None = None, **settings: str
) -> AsyncIterator[Process]:
    """Our program, on the stage."""
    identity = {"insecure_subject": f"spiffe://example.org/{stage.hop}", "max_token_lifetime": "1h"}
    async with stage.set(), Mesh() as mesh:
        peers = {f"{name}_url": peer.url for name, peer in stage.peers.items()}
        if role == "nsmgr":
            settings["registry_url"] = peers["registry_url"]
        elif role != "registry":
            settings["connect_to"] = stage.manager.url
        if role != "registry":
            settings["name"] = stage.hop
        if role != "nsc":
            settings["listen_on"] = LISTEN
        process = await mesh.start(role, env=env, **identity, **settings)
        ready = await process.ready()
        async with stage.playing_at(ready["listen"][0] if ready["listen"] else ""):
            yield process


@pytest.mark.parametrize("recording", ["local-request-close", "monitor", "remote"])
async def test_the_registry(recording: str) -> None:
    stage = Stage(recording, "registry", today=True)
    async with started(stage, "registry"):
        await stage.play()
    stage.check()


@pytest.mark.parametrize(
    ("recording", "hop", "env"),
    [
        ("local-request-close", "nsmgr-1", NODE),
        ("monitor", "nsmgr-1", {}),
        ("remote", "nsmgr-1", {}),
        ("remote", "nsmgr-2", {}),
    ],
)
async def test_a_manager(recording: str, hop: str, env: dict[str, str]) -> None:
    stage = Stage(recording, hop, today=True)
    async with started(stage, "nsmgr", env):
        await stage.play()
    stage.check()


@pytest.mark.parametrize(
    ("recording", "hop"),
    [("local-request-close", "forwarder-1"), ("remote", "forwarder-1"), ("remote", "forwarder-2")],
)
async def test_a_forwarder(recording: str, hop: str) -> None:
    stage = Stage(recording, hop, ignore=NO_MECHANISM, today=True)
    async with started(stage, "forwarder"):
        await stage.play()
    stage.check()


async def test_the_endpoint() -> None:
    stage = Stage("local-request-close", "nse-1", ignore=NO_MECHANISM, today=True)
    async with started(
        stage,
        "nse",
        service_names="my-service",
        labels="color:red",
        cidr_prefix="172.16.0.96/27",
        register_service="false",
        unregister_itself="true",
    ) as process:
        leaves = next(one for one in stage.script.calls_of("nse-1") if one.method.name == "Unregister")

        async def leave() -> None:
            assert await process.stop() == 0

        await stage.play(actions={leaves.number: leave})
    stage.check()


async def test_the_client() -> None:
    stage = Stage("local-request-close", "nsc-1", ignore=NO_MECHANISM, today=True)
    # Our program makes ids of its name and the place in its list.
    stage.translation.learn("conn-1", "nsc-1-0")
    calls = [one for one in stage.script.calls_of("nsc-1") if not one.stream]
    first, refresh, close = calls
    async with started(stage, "nsc", network_services="kernel://my-service?app=client") as process:
        # Before it refreshes, when a third of an hour has passed.
        await stage.play(until=refresh.first - 1)
        line = await process.event("connected")
        assert line["id"] == "nsc-1-0"
        assert (line["src"], line["dst"]) == (["172.16.0.97/32"], ["172.16.0.96/32"])
        assert line["path"] == ["nsc-1", "nsmgr-1", "forwarder-1", "nse-1"]
        stage.skip(until=close.last)
        assert await process.stop() == 0
        assert [one["id"] for one in process.events("closed")] == ["nsc-1-0"]
    stage.check()
    assert first.method.name == refresh.method.name == "Request"


@pytest.mark.parametrize(("role", "hop"), [("nsmgr", "nsmgr-1"), ("forwarder", "forwarder-1")])
async def test_failures(role: str, hop: str) -> None:
    stage = Stage("errors", hop, ignore=NO_MECHANISM, today=True)
    stops = next(number for number, text in stage.script.steps.items() if "nsmgr-1 stops" in text)
    async with started(stage, role):
        await stage.play(until=stops)
    stage.check()


@pytest.mark.parametrize(("role", "hop"), [("nsmgr", "nsmgr-1"), ("forwarder", "forwarder-1")])
@pytest.mark.parametrize(("recording", "dies"), [("monitor", "nse-1"), ("heal-nse", "nse-1")])
async def test_an_endpoint_dies(recording: str, dies: str, role: str, hop: str) -> None:
    stage = Stage(recording, hop, ignore=NO_MECHANISM, today=True)
    deaths = [number for number, text in stage.script.steps.items() if f"{dies} dies" in text]
    hooks = dict.fromkeys(deaths, stage.peers[dies].stop) if dies in stage.peers else {}
    async with started(stage, role, dial_timeout="200ms"):
        await stage.play(hooks=hooks)
    stage.check()
