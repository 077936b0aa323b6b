# SPDX-License-Identifier: Apache-2.0
"""The far side of a connection.

Does:  names the next hop that a connection was sent to, and what was sent.
Place: written by `Connect`; read by elements that follow the next hop (monitor, heal).
State: `FAR`, a slot of each connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from nsm_sdk.api import Snapshot
from nsm_sdk.core import Bound, Slot
from nsm_sdk.elements.answer import PassedFile


@dataclass(frozen=True, slots=True)
class Far:
    """The next hop of a connection."""

    url: str
    bound: Bound
    sent: Snapshot
    """The connection as it was last sent there, or as it was last answered."""
    lost: bool = False
    """It did not answer when it was told to close."""
    passed: PassedFile | None = None
    """The file in its answer that has no URL here."""


FAR: Slot[Far] = Slot("far side")
