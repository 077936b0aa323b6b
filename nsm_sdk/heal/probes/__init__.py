# SPDX-License-Identifier: Apache-2.0
"""Checks of the datapath.

Does:  re-exports them.
Place: given to `Heal`.
"""

from __future__ import annotations

from nsm_sdk.heal.probes.application import Ask, Tcp
from nsm_sdk.heal.probes.carrier import Carrier
from nsm_sdk.heal.probes.combine import All, Auto
from nsm_sdk.heal.probes.icmp import Icmp, ping_allowed
from nsm_sdk.heal.probes.neighbour import Neighbour
from nsm_sdk.heal.probes.probe import (
    ALIVE,
    Inside,
    LinkEvent,
    LinkEvents,
    LinkWatch,
    Liveness,
    Probe,
    Regular,
    Target,
    Verdict,
)

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
