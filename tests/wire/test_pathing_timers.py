# SPDX-License-Identifier: Apache-2.0
"""Timers of a connection are set like the Go programs set theirs.

Does:  runs the recorded rows through the elements, in virtual time, and compares when the timers are due.
Place: table `pathing` (refresh_client, timeout_server).
State: none.
"""

from __future__ import annotations

from typing import Any

import pytest

from nsm_sdk.api import Connection, Path, PathSegment, Request, expiry, previous, set_expiry
from nsm_sdk.core import Element
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.refresh import FLOOR, Refresh
from nsm_sdk.elements.timeout import Timeout
from nsm_sdk.errors import NsmError
from nsm_sdk.testing import START_WALL, rig, run_virtual
from tests.fixtures import rows
from tests.wire.deviations import DEVIATIONS

Row = dict[str, Any]
_UNITS = {"h": 3600.0, "m": 60.0, "ms": 1e-3, "s": 1.0, "ns": 1e-9}


def go_seconds(text: str | None) -> float | None:
    """A duration as Go prints it, with a remark in brackets maybe."""
    if text is None:
        return None
    total, number = 0.0, ""
    word = text.split(" ")[0]
    rest = word.lstrip("-")
    while rest:
        cut = next(at for at, letter in enumerate(rest) if not (letter.isdigit() or letter == "."))
        number, rest = rest[:cut], rest[cut:]
        unit = next(unit for unit in ("ms", "ns", "h", "m", "s") if rest.startswith(unit))
        total += float(number) * _UNITS[unit]
        rest = rest[len(unit) :]
    return -total if word.startswith("-") else total


def path(index: int, lives: list[str | None]) -> Path:
    segments = []
    for at, life in enumerate(lives):
        hop = PathSegment(name=f"s{at}", id="id" if at == index else f"i{at}")
        if (left := go_seconds(life)) is not None:
            set_expiry(hop, START_WALL + left)
        segments.append(hop)
    return Path(index=index, path_segments=segments)


async def first_timer(element: Element, asked: Path, timeout: float) -> float | None:
    """When the first timer is due after a request, in seconds from now; None without one."""
    async with rig(Begin(), element) as bench:
        request = Request(connection=Connection(id="id", path=asked))
        await bench.request(request, timeout=timeout)
        timers = [timer for _, _, timer in bench.runtime.timers._cells if timer.pending]
        due = min((timer.at for timer in timers), default=None)
        for timer in timers:
            timer.cancel()
        return due


@pytest.mark.parametrize("row", rows("pathing", "refresh_client"))
def test_refresh(row: Row) -> None:
    asked = path(row["path_index"], row["segment_expires_minus_now"])
    due = run_virtual(first_timer, Refresh(), asked, float("inf"))
    recorded = row["refresh_after"][0]["ns"] / 1e9
    if ("pathing", "refresh_client", row["case"]) in DEVIATIONS:
        assert due != pytest.approx(recorded, abs=1e-6)
        assert due is None or due >= FLOOR
    else:
        assert due == pytest.approx(recorded, abs=1e-6)


@pytest.mark.parametrize("row", rows("pathing", "timeout_server"))
def test_timeout(row: Row) -> None:
    lives = [row["previous_segment_expires_minus_now"], row.get("own_segment_expires_minus_now", "1h0m0s")]
    asked = path(1, lives) if row["error"] is None else path(0, [lives[1]])
    deviates = ("pathing", "timeout_server", row["case"]) in DEVIATIONS
    # The edge ends a call a little before its caller does, at most 50 ms.
    timeout = go_seconds(row["request_deadline_minus_now"]) or float("inf")
    try:
        due = run_virtual(first_timer, Timeout(), asked, timeout)
    except NsmError:
        assert row["error"] or deviates
        caller = previous(Connection(id="id", path=asked))
        # Refused are those whose time is over, or never was.
        assert caller is None or (expiry(caller) or 0) <= START_WALL
        return
    assert row["error"] is None
    recorded = row["close_after"][0]["ns"] / 1e9
    assert due is not None
    assert due > 0
    if deviates:
        assert due != pytest.approx(recorded, abs=0.06)
    else:
        assert due == pytest.approx(recorded, abs=0.06)
