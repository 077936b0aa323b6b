# SPDX-License-Identifier: Apache-2.0
"""Neighbours that are older than we: no path beside registry calls, no ids of hops, no tokens, loose finds."""

from __future__ import annotations

import pytest

from nsm_sdk import chains
from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY
from nsm_sdk.ipam import PointToPointIpam
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import Registrant, endpoint, forwarder, identity, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

NODE = {"NODE_NAME": "node-1", "POD_NAME": "pod-1", "CLUSTER_NAME": "cluster-1"}
LATER = ("pathIds", "initialRegistrationTime")
"""What entries did not have."""
NO_MECHANISM = ("mechanism", "mechanismPreferences", "metrics")


def older(hop: str, *, tokens: bool) -> Stage:
    """The recording, without what came later; `tokens`: whether registry calls bring any."""
    stage = Stage("local-request-close", hop, ignore=(*LATER, *NO_MECHANISM))
    for exchange in stage.script.exchanges.values():
        registers = "Registry" in exchange.method.service
        exchange.headers.pop("path", None)
        if exchange.server == hop and registers:
            exchange.metadata.pop("path", None)
            if not tokens:
                exchange.metadata.pop(TOKEN_KEY, None)
                exchange.metadata.pop(EXPIRES_KEY, None)
        if exchange.server != hop and registers:
            for _, answer in exchange.answers:
                for field in ("path_ids", "initial_registration_time"):
                    if field in answer.DESCRIPTOR.fields_by_name:
                        answer.ClearField(field)
    return stage


def differing(stage: Stage) -> list[str]:
    """All differences but one: without a path from the caller there is none to send on. What a loose find has told is
    passed on as it is."""
    loosely = stage.loose and stage.hop == "nsmgr-1"
    return [one for one in stage.found() if "path: recorded" not in one and not (loosely and "/Find: " in one)]


@pytest.mark.parametrize("tokens", [True, False])
async def test_the_registry(tokens: bool) -> None:
    stage = older("registry", tokens=tokens)
    mine, _ = identity("registry")
    async with stage.set(), stage.playing(chains.registry("registry", tokens=mine, services=[mine])):
        await stage.play()
    assert differing(stage) == []


@pytest.mark.parametrize("tokens", [True, False])
async def test_the_manager(tokens: bool) -> None:
    stage = older("nsmgr-1", tokens=tokens)
    stage.loose = True
    stage.patience = 0.5  # finds that differ are waited for in vain
    async with stage.set(), stage.playing(manager(stage, environment=NODE)):
        registry = stage.peers["registry"]
        registry.learn(NetworkService(name="my-service-2", payload="ETHERNET"), False)
        url = stage.script.addresses["nsmgr-1"]
        other = NetworkServiceEndpoint(name="a-forwarder", network_service_names=["forwarder-of-others"], url=f"{url}0")
        registry.learn(other, False)
        await stage.play()
    assert differing(stage) == []


async def test_the_forwarder() -> None:
    stage = older("forwarder-1", tokens=True)
    stage.loose = True
    async with stage.set(), stage.playing(forwarder(stage)), Registrant(stage).serving() as registrant:
        stage.manager.learn(NetworkService(name="my-service-2", payload="ETHERNET"), False)
        for name, service in (("a-nse", "my-service-2"), ("nse-10", "not-my-service")):
            other = NetworkServiceEndpoint(name=name, network_service_names=[service], url=stage.manager.url)
            stage.manager.learn(other, False)
        await stage.play(actions=registrant.actions())
    assert differing(stage) == []


async def test_the_endpoint() -> None:
    stage = older("nse-1", tokens=True)
    role = endpoint(stage, PointToPointIpam("172.16.0.96/27"))
    async with stage.set(), stage.playing(role), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions())
    assert differing(stage) == []
