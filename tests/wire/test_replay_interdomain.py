# SPDX-License-Identifier: Apache-2.0
"""Two domains, eight hops: managers, forwarders and the endpoint's registry of the recording are ours in turn."""

from __future__ import annotations

import logging

import pytest

from nsm_sdk import chains
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import Registrant, forwarder, identity, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

RECORDING = "interdomain"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "nsm_sdk")


async def test_the_registry_of_the_endpoint() -> None:
    stage = Stage(RECORDING, "cluster2/registry")
    tokens, _ = identity(stage.hop)
    async with stage.set(), stage.playing(chains.registry(stage.hop, tokens=tokens, services=[tokens])):
        await stage.play()
    stage.check()


@pytest.mark.parametrize("hop", ["cluster1/nsmgr-1", "cluster2/nsmgr-1"])
async def test_a_manager(hop: str) -> None:
    stage = Stage(RECORDING, hop)
    async with stage.set(), stage.playing(manager(stage)):
        await stage.play()
    stage.check()


@pytest.mark.parametrize("hop", ["cluster1/forwarder-1", "cluster2/forwarder-1"])
async def test_a_forwarder(hop: str) -> None:
    stage = Stage(RECORDING, hop, ignore=("mechanism", "mechanismPreferences", "metrics"))
    async with stage.set(), stage.playing(forwarder(stage)), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions())
    stage.check()
