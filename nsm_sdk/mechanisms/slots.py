# SPDX-License-Identifier: Apache-2.0
"""State that elements of this room share on purpose.

Does:  names the mechanism of a connection's far leg, as bytes: set by TranslateMechanism, read by KernelForward.
Place: under both.
State: the slot.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.core import Call, Slot

FAR_MECHANISM: Slot[bytes] = Slot("far mechanism")


def far_mechanism(call: Call) -> Mechanism | None:
    """The mechanism that the next hop has chosen, a copy; None before it has answered."""
    raw = FAR_MECHANISM.get(call)
    return Mechanism.FromString(raw) if raw is not None else None


def note_interface(conn: Connection, key: str, mechanism: Mechanism) -> None:
    """Writes `TYPE/name` into the metrics of the current path segment, once."""
    path = conn.path
    if path.index < len(path.path_segments) and mechanism.type:
        metrics = path.path_segments[path.index].metrics
        if key not in metrics:
            name = mechanism.parameters.get("name", "") if mechanism.parameters else "unknown"
            metrics[key] = f"{mechanism.type}/{name}"
