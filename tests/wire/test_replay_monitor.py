# SPDX-License-Identifier: Apache-2.0
"""Ten kinds of monitor selectors, before, during and after a connection, and when the endpoint dies."""

from __future__ import annotations

import logging

import pytest

from nsm_sdk import chains
from nsm_sdk.ipam import PointToPointIpam
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import Registrant, endpoint, forwarder, identity, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

RECORDING = "monitor"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # A record that is kept keeps its error, and the error keeps gRPC's call open.
    caplog.set_level(logging.ERROR, "nsm_sdk")


def death(stage: Stage) -> int:
    """The event at which the endpoint dies."""
    return next(number for number, text in stage.script.steps.items() if "nse-1 dies" in text)


async def test_the_registry() -> None:
    stage = Stage(RECORDING, "registry")
    tokens, _ = identity("registry")
    async with stage.set(), stage.playing(chains.registry("registry", tokens=tokens, services=[tokens])):
        await stage.play()
    stage.check()


async def test_the_manager() -> None:
    stage = Stage(RECORDING, "nsmgr-1")
    async with stage.set(), stage.playing(manager(stage)):
        await stage.play()
    stage.check()


async def test_the_forwarder() -> None:
    stage = Stage(RECORDING, "forwarder-1", ignore=("mechanism", "mechanismPreferences", "metrics"))
    async with stage.set(), stage.playing(forwarder(stage)), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions(), hooks={death(stage): stage.peers["nse-1"].stop})
    stage.check()


async def test_the_endpoint() -> None:
    stage = Stage(RECORDING, "nse-1")
    role = endpoint(stage, PointToPointIpam("10.0.1.0/24"))
    async with stage.set(), stage.playing(role), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions(), until=death(stage))
    stage.check()
