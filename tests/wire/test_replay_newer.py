# SPDX-License-Identifier: Apache-2.0
"""Neighbours that are newer than we: fields that nobody knows, in every message, survive each of our hops both ways."""

from __future__ import annotations

import pytest

from nsm_sdk import chains
from nsm_sdk.ipam import PointToPointIpam
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import Registrant, endpoint, forwarder, identity, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

RECORDING = "local-request-close"
NODE = {"NODE_NAME": "node-1", "POD_NAME": "pod-1", "CLUSTER_NAME": "cluster-1"}
INDEX = {"nsmgr-1": 1, "forwarder-1": 2, "nse-1": 3}


def lost(stage: Stage, *own: str) -> list[str]:
    """Where the fields are missing, but for what our hop has made itself: its path segment, and `own`."""
    found: list[str] = []
    segment = f"path.path_segments[{INDEX.get(stage.hop, 9)}]"
    for (side, number), places in stage.lost.items():
        exchange = stage.script.exchanges[number]
        # Events are of our own making, as are results where the registry is ours; closing is answered with nothing.
        finds = exchange.method.name == "Find"
        ours = exchange.method.name in ("MonitorConnections", "Close", "Unregister") or (
            finds and stage.hop == "registry"
        )
        for place in places:
            made = place.endswith((segment, *own)) or (side == "answers" and ours and place == ".")
            if not made:
                found.append(f"{side}: {exchange}: {place}")
    return found


async def test_the_registry() -> None:
    stage = Stage(RECORDING, "registry", newer=True)
    tokens, _ = identity("registry")
    async with stage.set(), stage.playing(chains.registry("registry", tokens=tokens, services=[tokens])):
        await stage.play()
    stage.check()
    assert stage.lost
    assert lost(stage) == []


async def test_the_manager() -> None:
    stage = Stage(RECORDING, "nsmgr-1", newer=True)
    async with stage.set(), stage.playing(manager(stage, environment=NODE)):
        await stage.play()
    stage.check()
    assert stage.lost
    first = next(one for one in stage.script.calls_of("nsmgr-1") if one.method.name == "Request")
    # The first request comes without an IP context; the manager makes one.
    assert stage.lost["requests", first.number] == {
        ".connection.context.ip_context",
        ".connection.path.path_segments[1]",
    }
    del stage.lost["requests", first.number]
    assert lost(stage) == []


@pytest.mark.parametrize("hop", ["forwarder-1", "nse-1"])
async def test_forwarder_and_endpoint(hop: str) -> None:
    stage = Stage(RECORDING, hop, ignore=("mechanism", "mechanismPreferences", "metrics"), newer=True)
    async with stage.set():
        role = forwarder(stage) if hop == "forwarder-1" else endpoint(stage, PointToPointIpam("172.16.0.96/27"))
        async with stage.playing(role), Registrant(stage).serving() as registrant:
            await stage.play(actions=registrant.actions())
    stage.check()
    assert stage.lost
    for one in stage.script.calls_of(hop):
        if one.method.name == "Register":
            del stage.lost["requests", one.number]
    assert lost(stage, "mechanism_preferences[0]", "ip_context.src_routes[0]", "ip_context.dst_routes[0]") == []
