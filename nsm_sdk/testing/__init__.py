# SPDX-License-Identifier: Apache-2.0
"""The kit for testing chains, without mocks, sleeps or sockets.

Does:  `drive` and `rig` run elements; doubles stand for what is below; `virtual_time` runs a day of timers in
       milliseconds; `Holdings` finds what a test leaves behind.
Place: tests, ours and yours; covered by the promise of stable names like the rest of the public surface.
State: none.
"""

from __future__ import annotations

from nsm_sdk.testing.begin import OpenState
from nsm_sdk.testing.doubles import Answer, FailTimes, Gate, Lose, Park, Probe
from nsm_sdk.testing.leaks import LASTING_THREADS, Holdings
from nsm_sdk.testing.rig import Driven, Left, Rig, drive, rig, with_begin
from nsm_sdk.testing.samples import sample_connection, sample_endpoint, sample_request, sample_service
from nsm_sdk.testing.seen import Passed, Seen
from nsm_sdk.testing.settle import settled
from nsm_sdk.testing.tasks import LeakError
from nsm_sdk.testing.virtual import (
    DAY,
    START_WALL,
    VirtualClock,
    VirtualLoop,
    VirtualTimeError,
    current_clock,
    run_virtual,
    virtual_time,
)

__all__ = [
    "DAY",
    "LASTING_THREADS",
    "START_WALL",
    "Answer",
    "Driven",
    "FailTimes",
    "Gate",
    "Holdings",
    "LeakError",
    "Left",
    "Lose",
    "OpenState",
    "Park",
    "Passed",
    "Probe",
    "Rig",
    "Seen",
    "VirtualClock",
    "VirtualLoop",
    "VirtualTimeError",
    "current_clock",
    "drive",
    "rig",
    "run_virtual",
    "sample_connection",
    "sample_endpoint",
    "sample_request",
    "sample_service",
    "settled",
    "virtual_time",
    "with_begin",
]
