# SPDX-License-Identifier: Apache-2.0
"""Programs that break under a running ping.

Does:  a part of the matrix of faults, the rest of which tools/heal_matrix.py plays; and `nsm demo heal` as people call
       it, which must end with the status that its outcome deserves.
Place: whole meshes of programs with real packets; skipped where there are no namespaces.
State: a mesh per test.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import pytest

from nsm_sdk.lab import PROGRAMS, PROGRAMS_TCP
from nsm_sdk.lab.faults import dropping
from nsm_sdk.lab.scenarios import SCENARIOS, Outcome, play
from nsm_sdk.lab.scenarios.heal import wrong
from nsm_sdk.lab.scenarios.matrix import FAULTS, TARGETS, play_cell
from nsm_sdk.lab.scenarios.stage import staged
from nsm_sdk.netlink import list_namespaces
from tests.mesh.modes import why_not
from tests.run import MARK, unique

pytestmark = [pytest.mark.netns, pytest.mark.slow]
LONG = pytest.mark.long
NAME = f"h{MARK}"
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(autouse=True)
def _packets() -> None:
    if why_not(PROGRAMS_TCP):
        pytest.skip(why_not(PROGRAMS_TCP))


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(
            [("manager", "kill"), ("forwarder", "kill"), ("registry", "kill")], id="control plane", marks=LONG
        ),
        pytest.param([("client", "kill"), ("endpoint", "kill"), ("manager and endpoint", "kill")], id="ends"),
        pytest.param([("manager", "stop"), ("forwarder", "drop"), ("endpoint", "slow")], id="silence", marks=LONG),
        pytest.param([("link", "kill"), ("link", "stop"), ("endpoint", "drop")], id="packets"),
    ],
)
async def test_it_ends_connected_with_nothing_left(cells: Sequence[tuple[str, str]]) -> None:
    async with staged(PROGRAMS_TCP, name=NAME) as stage:
        for target, fault in cells:
            assert target in TARGETS
            assert fault in FAULTS
            cell = await play_cell(stage, unique("nsc-"), target, fault)
            assert cell.connected
            assert not cell.wrong, f"{target} {fault}: {cell.wrong}"
            if target == "link":
                assert cell.repair is not None


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in ("link", "gone")])
async def test_dead_packets_move_the_connection(name: str) -> None:
    async with staged(PROGRAMS, name=NAME) as stage, stage.client(unique("nsc-")) as client:
        before = client.endpoint
        outcome = await play(stage, client, BY_NAME[name], lambda text: None)
        assert outcome.moved
        assert client.endpoint != before
        told = [line["event"] for line in await client.story()]
        # Seen, decided, done: in this order, and the journal has all of it.
        at = [told.index(kind) for kind in ("connected", "down", "healing", "attempt", "healed")]
        assert at == sorted(at)


async def test_a_client_that_comes_back_checks_what_it_finds() -> None:
    async with staged(PROGRAMS, name=NAME) as stage, stage.client(unique("nsc-")) as client:
        before = client.now
        mark = client.mark()
        await client.hop.kill()
        await client.hop.start()
        again = (await client.event(mark, "connected")).line
        same = ("id", "endpoint", "src", "dst", "interface", "path")
        assert [again[name] for name in same] == [before[name] for name in same]
        until = await client.there.settled()
        await client.back.settled()
        assert client.there.lost(mark.at, until) == client.back.lost(mark.at, until) == 0
        # What has died meanwhile is not taken up: there is another endpoint to go to.
        await client.hop.kill()
        mark = client.mark()
        async with dropping(stage.serving(client).pod):
            await client.hop.start()
            moved = (await client.event(mark, "connected")).line
            assert moved["endpoint"] != before["endpoint"]
            assert moved["id"] == before["id"]
            await client.flows()
            assert not client.since(mark, "healing")


async def test_explain_tells_what_was_seen_and_what_it_cost() -> None:
    async with staged(PROGRAMS, name=NAME) as stage, stage.client(unique("nsc-")) as client:
        await play(stage, client, BY_NAME["drop"], lambda text: None)
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nsm_sdk.cli.main", "explain", client.now["id"]),
            *("--socket", client.hop.settings["ADMIN_SOCKET"]),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asking.communicate()
        assert asking.returncode == 0
        words = [line.split()[1] for line in out.decode().splitlines()]
        at = [words.index(kind) for kind in ("connected", "down", "healing", "attempt", "healed")]
        assert at == sorted(at)
        down = out.decode().splitlines()[at[1]]
        assert "no answer to pings" in down
        assert "detect_ms=" in down


@pytest.mark.parametrize("arguments", [["manager", "drop"], ["nonsense"]])
async def test_the_demo_tells_the_truth_and_leaves_nothing(arguments: list[str]) -> None:
    before = set(list_namespaces("heal-"))
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nsm_sdk.cli.main", "demo", "heal", "--plain", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    out, errors = (text.decode() for text in await demo.communicate())
    if "nonsense" in arguments:
        assert demo.returncode == 2
        assert "choose from" in errors
        return
    assert ("WRONG" in out) == (demo.returncode == 1)
    assert demo.returncode in (0, 1), errors
    assert all(f"{name}: repaired" in out for name in arguments)
    assert set(list_namespaces("heal-")) <= before


def test_what_is_wrong_is_said() -> None:
    manager, link = BY_NAME["manager"], BY_NAME["link"]
    assert wrong(manager, Outcome(sent=9, detect=0.1, repair=0.2)) == []
    assert wrong(manager, Outcome(sent=9, lost=(1, 0), detect=0.1, repair=0.2, moved=True)) == [
        "it moved without need",
        "1 pings were lost although data could flow all the time",
    ]
    assert wrong(link, Outcome(sent=9, lost=(5, 5), detect=0.5, repair=0.2)) == [
        "it did not move",
        "noticed after 500 ms, not within 100 ms",
    ]
    assert wrong(link, Outcome(sent=9, moved=True)) == ["nothing was noticed"]
