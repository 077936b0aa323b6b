# SPDX-License-Identifier: Apache-2.0
"""What becomes of journal entries outside: log lines, and OpenTelemetry.

Does:  `log_entries` writes each entry to the log; `telemetry` counts heals and measures detection and repair through
       OpenTelemetry, where that is installed.
Place: observers of `Journals`.
State: the instruments of a meter.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.heal.journal import Entry, EntryObserver, Journal
from nsm_sdk.heal.steps import Kind

logger = logging.getLogger("nsm_sdk.heal")

_LOUD = frozenset({Kind.DOWN.value, Kind.HEALING.value, Kind.HEALED.value, Kind.GAVE_UP.value})


def log_entries(journal: Journal, entry: Entry) -> None:
    """Trouble and its end are for everybody; the steps between are for those who look (DEBUG)."""
    level = logging.WARNING if entry.kind == Kind.GAVE_UP else logging.INFO
    logger.log(level if entry.kind in _LOUD else logging.DEBUG, "%s: %s: %s", journal.id, entry.kind, entry.text)


def telemetry(meter: Any = None) -> EntryObserver:
    """An observer that feeds OpenTelemetry; `meter` defaults to the global one named nsm_sdk.heal.

    FailedPrecondition where OpenTelemetry is not installed.
    """
    if meter is None:
        try:
            metrics = importlib.import_module("opentelemetry.metrics")
        except ImportError:
            raise FailedPrecondition(
                "OpenTelemetry is not installed", hint="pip install nsm-sdk[opentelemetry]"
            ) from None
        meter = metrics.get_meter("nsm_sdk.heal")
    events = meter.create_counter("nsm.heal.events", description="entries of connection journals, by kind")
    detect = meter.create_histogram("nsm.heal.detect", unit="s", description="last sign of life to detection")
    repair = meter.create_histogram("nsm.heal.repair", unit="s", description="first sign of trouble to repair")
    attempts = meter.create_histogram("nsm.heal.attempts", description="attempts until healed")

    def observe(journal: Journal, entry: Entry) -> None:
        labels = {"kind": entry.kind, "service": journal.service}
        if entry.why:
            labels["why"] = entry.why
        events.add(1, labels)
        if entry.kind == Kind.DOWN and entry.detect is not None:
            detect.record(entry.detect, labels)
        if entry.kind == Kind.HEALED:
            moved = {**labels, "moved": str(bool(entry.moved)).lower()}
            repair.record(entry.repair or 0.0, moved)
            attempts.record(entry.attempts or 0, moved)

    return observe
