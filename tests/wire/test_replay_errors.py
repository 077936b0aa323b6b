# SPDX-License-Identifier: Apache-2.0
"""Requests and closes that fail in many ways: the status on every hop."""

from __future__ import annotations

import logging

import pytest

from nsm_sdk import chains
from nsm_sdk.api import Connection, Request
from nsm_sdk.errors import NsmError, Unavailable
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import Registrant, client, forwarder, identity, manager
from tests.wire.replay.script import Exchange
from tests.wire.replay.stage import PATIENCE, Action, Stage

pytestmark = needs_fixtures

RECORDING = "errors"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # A record that is kept keeps its error, and the error keeps gRPC's call open.
    caplog.set_level(logging.ERROR, "nsm_sdk")


def end(stage: Stage) -> int:
    """The event at which the manager stops."""
    return next(number for number, text in stage.script.steps.items() if "nsmgr-1 stops" in text)


async def test_the_registry() -> None:
    stage = Stage(RECORDING, "registry")
    tokens, _ = identity("registry")
    async with stage.set(), stage.playing(chains.registry("registry", tokens=tokens, services=[tokens])):
        await stage.play(until=end(stage))
    stage.check()


async def test_the_manager() -> None:
    stage = Stage(RECORDING, "nsmgr-1")
    async with stage.set(), stage.playing(manager(stage)):
        await stage.play(until=end(stage))
    stage.check()


async def test_the_forwarder() -> None:
    stage = Stage(RECORDING, "forwarder-1", ignore=("mechanism", "mechanismPreferences", "metrics"))
    async with stage.set(), stage.playing(forwarder(stage)), Registrant(stage).serving() as registrant:
        await stage.play(actions=registrant.actions(), until=end(stage))
    stage.check()


async def test_the_client() -> None:
    stage = Stage(RECORDING, "nsc-1")
    async with stage.set(), stage.playing(client(stage)) as running:
        chain = running.bound.connection
        assert chain is not None
        codes: list[int] = []
        opened: dict[str, Connection] = {}

        def request(exchange: Exchange) -> Action:
            async def act() -> None:
                asked = Request.FromString(exchange.request.SerializeToString())
                if stage.made_up(asked.connection.id):
                    asked.connection.id = ""
                asked.connection.ClearField("path")
                try:
                    call = running.call(timeout=exchange.timeout or PATIENCE)
                    conn = await chain.request(call, asked)
                    opened[conn.id] = conn
                    codes.append(0)
                except NsmError as error:
                    codes.append(error.status)

            return act

        requests = [one for one in stage.script.calls_of("nsc-1") if one.method.name == "Request"]
        await stage.play(actions={one.number: request(one) for one in requests}, until=end(stage))
        recorded = [one["status"]["code"] for one in stage.script.results if one["text"] == "Request returned"]
        assert codes == recorded[: len(codes)]
        assert len(codes) == 22
        assert codes.count(0) == 2

        await stage.peers["nsmgr-1"].stop()
        good = opened["good"]
        with pytest.raises(Unavailable):
            await chain.request(running.call(timeout=1), Request(connection=good))
        # A close succeeds with the manager gone; theirs fails with UNAVAILABLE.
        await chain.close(running.call(timeout=1), good)
    stage.check()
