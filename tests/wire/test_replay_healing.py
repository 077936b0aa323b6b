# SPDX-License-Identifier: Apache-2.0
"""Endpoints and forwarders die, datapaths fail, an endpoint asks for a refresh: what the hops between make of it."""

from __future__ import annotations

import logging

import pytest

from nsm_sdk import chains
from nsm_sdk.ipam import PointToPointIpam
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import Registrant, endpoint, forwarder, identity, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

RECORDINGS = ("heal-nse", "heal-forwarder", "heal-datapath", "monitor-refresh-requested")
NO_MECHANISM = ("mechanism", "mechanismPreferences", "metrics")
"""The recorded forwarders make no interface."""
DEATHS = {"heal-nse": "nse-1", "heal-forwarder": "forwarder-1"}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "nsm_sdk")


def deaths(stage: Stage) -> dict[int, str]:
    """Who of our hop's neighbours dies, by the number of the event."""
    who = DEATHS.get(stage.script.name, "")
    return {number: who for number, text in stage.script.steps.items() if f"{who} dies" in text and who in stage.peers}


@pytest.mark.parametrize("recording", RECORDINGS)
async def test_the_registry(recording: str) -> None:
    stage = Stage(recording, "registry")
    tokens, _ = identity("registry")
    async with stage.set(), stage.playing(chains.registry("registry", tokens=tokens, services=[tokens])):
        await stage.play()
    stage.check()


@pytest.mark.parametrize("recording", RECORDINGS)
async def test_the_manager(recording: str) -> None:
    stage = Stage(recording, "nsmgr-1")
    async with stage.set(), stage.playing(manager(stage)):
        await stage.play(hooks={number: stage.peers[who].stop for number, who in deaths(stage).items()})
    stage.check()


@pytest.mark.parametrize(
    ("recording", "hop"),
    [
        ("heal-nse", "forwarder-1"),
        ("heal-forwarder", "forwarder-1b"),
        ("heal-datapath", "forwarder-1"),
        ("monitor-refresh-requested", "forwarder-1"),
    ],
)
async def test_a_forwarder(recording: str, hop: str) -> None:
    stage = Stage(recording, hop, ignore=NO_MECHANISM)
    async with stage.set(), stage.playing(forwarder(stage)), Registrant(stage).serving() as registrant:
        await stage.play(
            actions=registrant.actions(),
            hooks={number: stage.peers[who].stop for number, who in deaths(stage).items()},
        )
    stage.check()


@pytest.mark.parametrize(
    ("recording", "hop", "prefix"),
    [
        ("heal-nse", "nse-2", "10.0.2.0/24"),
        ("heal-forwarder", "nse-1", ""),
        ("heal-datapath", "nse-1", "10.0.1.0/24"),
        ("heal-datapath", "nse-2", "10.0.2.0/24"),
    ],
)
async def test_an_endpoint(recording: str, hop: str, prefix: str) -> None:
    stage = Stage(recording, hop)
    role = endpoint(stage, *([PointToPointIpam(prefix)] if prefix else []))
    async with stage.set(), stage.playing(role), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions())
    stage.check()
