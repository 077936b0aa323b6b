# SPDX-License-Identifier: Apache-2.0
"""Two nodes, six hops: requested, refreshed, closed, with each hop ours in turn."""

from __future__ import annotations

import logging

import pytest

from nsm_sdk import chains
from nsm_sdk.ipam import PointToPointIpam
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import Registrant, endpoint, forwarder, identity, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

RECORDING = "remote"
NO_MECHANISM = ("mechanism", "mechanismPreferences", "metrics")
"""The recorded forwarders make no interface."""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "nsm_sdk")


async def test_the_registry() -> None:
    stage = Stage(RECORDING, "registry")
    tokens, _ = identity("registry")
    async with stage.set(), stage.playing(chains.registry("registry", tokens=tokens, services=[tokens])):
        await stage.play()
    stage.check()


@pytest.mark.parametrize("hop", ["nsmgr-1", "nsmgr-2"])
async def test_a_manager(hop: str) -> None:
    stage = Stage(RECORDING, hop)
    async with stage.set(), stage.playing(manager(stage)):
        await stage.play()
    stage.check()


@pytest.mark.parametrize("hop", ["forwarder-1", "forwarder-2"])
async def test_a_forwarder(hop: str) -> None:
    stage = Stage(RECORDING, hop, ignore=NO_MECHANISM)
    async with stage.set(), stage.playing(forwarder(stage)), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions())
    stage.check()


async def test_the_endpoint() -> None:
    stage = Stage(RECORDING, "nse-1")
    role = endpoint(stage, PointToPointIpam("10.0.1.0/24"))
    async with stage.set(), stage.playing(role), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions())
    stage.check()
