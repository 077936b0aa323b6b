# SPDX-License-Identifier: Apache-2.0
"""Healing that asks the datapath first, explains itself, and never surprises.

Does:  re-exports what the modules of this room define.
Place: above elements, below chains; the probes' sockets and events come from ports.
State: none.
"""

from __future__ import annotations

from nsm_sdk.heal.decide import decide
from nsm_sdk.heal.earlier import checked_by, find_connections, take_over
from nsm_sdk.heal.element import Heal
from nsm_sdk.heal.export import log_entries, telemetry
from nsm_sdk.heal.happenings import Event, Happening, Happenings, Stream
from nsm_sdk.heal.held import Standing
from nsm_sdk.heal.journal import Entry, EntryObserver, Journal, Journals, story
from nsm_sdk.heal.model import Control, Data, Healing, Phase, Policy, Why
from nsm_sdk.heal.moving import same_endpoint, select_anew
from nsm_sdk.heal.probes import (
    All,
    Ask,
    Auto,
    Carrier,
    Icmp,
    Inside,
    LinkEvents,
    Liveness,
    Neighbour,
    Probe,
    Target,
    Tcp,
    Verdict,
)
from nsm_sdk.heal.resume import Resume
from nsm_sdk.heal.steps import Kind

__all__ = [
    "All",
    "Ask",
    "Auto",
    "Carrier",
    "Control",
    "Data",
    "Entry",
    "EntryObserver",
    "Event",
    "Happening",
    "Happenings",
    "Heal",
    "Healing",
    "Icmp",
    "Inside",
    "Journal",
    "Journals",
    "Kind",
    "LinkEvents",
    "Liveness",
    "Neighbour",
    "Phase",
    "Policy",
    "Probe",
    "Resume",
    "Standing",
    "Stream",
    "Target",
    "Tcp",
    "Verdict",
    "Why",
    "checked_by",
    "decide",
    "find_connections",
    "log_entries",
    "same_endpoint",
    "select_anew",
    "story",
    "take_over",
    "telemetry",
]
