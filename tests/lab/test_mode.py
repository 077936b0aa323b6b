# SPDX-License-Identifier: Apache-2.0
"""Modes and counts.

Does:  refuses what does not go together; tells which modes work in virtual time; counts tell what is new.
Place: `nsm_sdk.lab`.
State: none.
"""

from __future__ import annotations

import pytest

from nsm_sdk import lab
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.lab import Counts, Ground, Mode, Pings, Transport
from nsm_sdk.lab.pod import pairs


def test_programs_cannot_call_in_process() -> None:
    with pytest.raises(ProgrammingError, match="in process"):
        Mode(programs=True)


def test_programs_cannot_share_a_kernel_in_memory() -> None:
    with pytest.raises(ProgrammingError, match="kernel in memory"):
        Mode(transport=Transport.UNIX, ground=Ground.MEMORY, programs=True)


@pytest.mark.parametrize(
    ("mode", "virtual"),
    [(lab.INPROC, True), (lab.MEMORY, True), (lab.UNIX, False), (lab.TCP, False), (lab.NAMESPACES, False)],
)
def test_virtual_time_is_for_what_has_no_sockets(mode: Mode, virtual: bool) -> None:
    assert mode.virtual is virtual


def test_only_namespaces_ask_something_of_the_machine() -> None:
    assert lab.UNIX.why_not() == ""
    assert str(lab.PROGRAMS) == "programs, unix, kernel"


def test_counts_tell_what_is_new() -> None:
    before = Counts({("connections", "nsc"): 1, ("slots", "nsc"): 2})
    after = Counts({("connections", "nsc"): 1, ("slots", "nsc"): 5, ("interfaces", "pod"): 1})
    assert after.new_since(before) == ["1 interfaces at pod", "3 slots at nsc"]
    assert after.new_since(before, apart=["slots"]) == ["1 interfaces at pod"]
    assert before.new_since(after) == []
    assert after.of("slots") == after.of("slots", "nsc") == 5
    assert after.of("slots", "elsewhere") == 0
    assert str(after) == "1 connections, 1 interfaces, 5 slots"
    assert str(Counts({})) == "nothing"


def test_pings() -> None:
    pings = Pings(sent=3, times=[0.1, 0.3])
    assert (pings.lost, pings.ok, round(pings.average, 3)) == (1, False, 0.2)
    assert not Pings().ok
    assert Pings().average != Pings().average


def test_pairs_are_of_one_family() -> None:
    assert pairs(["10.0.0.1/32", "fd00::1/128"], ["10.0.0.0/32", "fd00::/128"]) == [
        ("10.0.0.1", "10.0.0.0"),
        ("fd00::1", "fd00::"),
    ]
