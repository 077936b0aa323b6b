# SPDX-License-Identifier: Apache-2.0
"""Checks of the datapath.

Does:  re-exports them.
Place: given to `Heal`.
State: none.
"""

from __future__ import annotations

from nsm_sdk.heal.probes.ask import Ask
from nsm_sdk.heal.probes.base import ALIVE, Inside, LinkEvent, LinkEvents, LinkWatch, Probe, Target, Verdict
from nsm_sdk.heal.probes.carrier import Carrier
from nsm_sdk.heal.probes.icmp import Icmp, ping_allowed
from nsm_sdk.heal.probes.neighbour import Neighbour
from nsm_sdk.heal.probes.regular import Liveness, Regular
from nsm_sdk.heal.probes.several import All, Auto
from nsm_sdk.heal.probes.tcp import Tcp

__all__ = [
    "ALIVE",
    "All",
    "Ask",
    "Auto",
    "Carrier",
    "Icmp",
    "Inside",
    "LinkEvent",
    "LinkEvents",
    "LinkWatch",
    "Liveness",
    "Neighbour",
    "Probe",
    "Regular",
    "Target",
    "Tcp",
    "Verdict",
    "ping_allowed",
]
