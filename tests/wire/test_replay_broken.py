# SPDX-License-Identifier: Apache-2.0
"""Next hops that answer what cannot be right: the caller gets its own connection or a plain error, never a crash."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from nsm_sdk.api import Connection
from tests.fixtures import needs_fixtures
from tests.wire.replay.hops import forwarder, manager
from tests.wire.replay.stage import Stage

pytestmark = needs_fixtures

Break = Callable[[Connection], object]


def no_path(conn: Connection) -> None:
    conn.ClearField("path")


def first_segment_only(conn: Connection) -> None:
    del conn.path.path_segments[1:]


def strangers(conn: Connection) -> None:
    for segment in conn.path.path_segments:
        segment.name, segment.id = "somebody", "else"


def nothing(conn: Connection) -> None:
    conn.Clear()


def index_far_out(conn: Connection) -> None:
    conn.path.index = 2**32 - 1


def index_of_the_first(conn: Connection) -> None:
    conn.path.index = 0


def index_of_the_last(conn: Connection) -> None:
    conn.path.index = len(conn.path.path_segments) - 1


def other_id(conn: Connection) -> None:
    conn.id = "somebody-else"


def no_id(conn: Connection) -> None:
    conn.id = ""


async def played(hop: str, broken: Break) -> list[str]:
    """The first request with a broken answer from the next hop: what our hop's own answer differs in."""
    stage = Stage("local-request-close", hop, ignore=("mechanism", "mechanismPreferences", "metrics", "labels"))
    stage.patience = 0.5
    first = next(one for one in stage.script.calls_of(hop) if one.method.name == "Request")
    broken(first.answers[0][1])
    async with stage.set():
        role = manager(stage) if hop == "nsmgr-1" else forwarder(stage)
        async with stage.playing(role):
            asked = next(one for one in stage.script.calls_to(hop) if one.method.name == "Request")
            await stage.play(until=asked.last)
    mine = f"answers: {asked}: "
    return [one.removeprefix(mine) for one in stage.found() if one.startswith(mine)]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "nsm_sdk")


@pytest.mark.parametrize("hop", ["nsmgr-1", "forwarder-1"])
@pytest.mark.parametrize("broken", [index_far_out, index_of_the_first, index_of_the_last, other_id, no_id])
async def test_a_wrong_index_or_id_is_put_right(hop: str, broken: Break) -> None:
    assert await played(hop, broken) == []


@pytest.mark.parametrize("hop", ["nsmgr-1", "forwarder-1"])
@pytest.mark.parametrize("broken", [no_path, first_segment_only, strangers, nothing])
async def test_another_connection_is_refused(hop: str, broken: Break) -> None:
    [one] = await played(hop, broken)
    assert "ours 15" in one
    assert "answered with another" in one
