# SPDX-License-Identifier: Apache-2.0
"""The kit for testing chains, without mocks, sleeps or sockets.

Does:  `drive` and `rig` run elements; doubles stand for what is below; `virtual_time` runs a day of timers in
       milliseconds; `Holdings` finds what a test leaves behind.
Place: tests, ours and yours; covered by the promise of stable names like the rest of the public surface.
"""

from __future__ import annotations

from nsm_sdk.testing.contract import POINTS, Contract, ContractError, check_element
from nsm_sdk.testing.doubles import Answer, FailTimes, Gate, Lose, Park, Passed, Probe, Seen
from nsm_sdk.testing.faults import Ended, Fault, Faults, explore, fault_points
from nsm_sdk.testing.leaks import LASTING_THREADS, Holdings, LeakError, connected_sockets
from nsm_sdk.testing.loopback import Loopback, Onward, loopback
from nsm_sdk.testing.rig import Driven, Left, Rig, drive, rig, with_begin
from nsm_sdk.testing.samples import at_hop, sample_connection, sample_endpoint, sample_request, sample_service
from nsm_sdk.testing.streams import Entries, Feed, RegistryFailTimes, RegistryProbe, bind_registry, bind_watch
from nsm_sdk.testing.virtual import (
    DAY,
    START_WALL,
    VirtualClock,
    VirtualLoop,
    VirtualTimeError,
    current_clock,
    run_virtual,
    settled,
    virtual_time,
)

__all__ = [
    "DAY",
    "LASTING_THREADS",
    "POINTS",
    "START_WALL",
    "Answer",
    "Contract",
    "ContractError",
    "Driven",
    "Ended",
    "Entries",
    "FailTimes",
    "Fault",
    "Faults",
    "Feed",
    "Gate",
    "Holdings",
    "LeakError",
    "Left",
    "Loopback",
    "Lose",
    "Onward",
    "Park",
    "Passed",
    "Probe",
    "RegistryFailTimes",
    "RegistryProbe",
    "Rig",
    "Seen",
    "VirtualClock",
    "VirtualLoop",
    "VirtualTimeError",
    "at_hop",
    "bind_registry",
    "bind_watch",
    "check_element",
    "connected_sockets",
    "current_clock",
    "drive",
    "explore",
    "fault_points",
    "loopback",
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
