# SPDX-License-Identifier: Apache-2.0
"""A datapath without packets: it accepts every joint and makes nothing.

Does:  remembers which connections are joined, and refuses an interface name that a real one would refuse. Needs no
       privileges; mechanisms and addresses are handled as they come.
Place: behind KernelForward, where NSM_DATAPATH=simulated or a mesh lives in one process.
State: the ids joined now.
"""

from __future__ import annotations

from collections.abc import Iterable

from nsm_sdk.api import Connection, Mechanism, check_interface_name
from nsm_sdk.mechanisms.ports import Joint


class SimulatedDatapath:
    """The Datapath that only keeps books."""

    def __init__(self) -> None:
        self._joined: set[str] = set()

    def claim(self, connection: str) -> Mechanism | None:
        """None: nothing is left of an earlier run."""
        return None

    async def join(self, joint: Joint) -> None:
        """Notes the connection; InvalidRequest for an interface name that cannot be."""
        for mechanism in (joint.near, joint.far):
            name = mechanism.parameters.get("name", "")
            if name:
                check_interface_name(name)
        self._joined.add(joint.id)

    async def part(self, conn: Connection) -> None:
        """Forgets the connection."""
        self._joined.discard(conn.id)

    async def sweep(self) -> list[str]:
        """Nothing outlives this process."""
        return []

    def ids(self) -> Iterable[str]:
        """The connections that are noted."""
        return list(self._joined)
