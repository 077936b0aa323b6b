# SPDX-License-Identifier: Apache-2.0
"""How a mesh is run on this machine.

Does:  `Mode` says what carries calls, what pods are made of, and whether the hops are programs of their own. The same
       scenario runs in every mode.
Place: argument of `Cluster`.
State: immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nsm_sdk.errors import ProgrammingError
from nsm_sdk.netlink import probe_now


class Transport(StrEnum):
    """What carries calls between hops."""

    INPROC = "inproc"
    UNIX = "unix"
    TCP = "tcp"


class Ground(StrEnum):
    """What pods stand on."""

    SIMULATED = "simulated"
    """Nothing: connections are only booked. The cheapest; works in virtual time."""
    MEMORY = "memory"
    """A kernel in memory, with interfaces, addresses and routes, and the real datapath on it; works in virtual time."""
    KERNEL = "kernel"
    """Network namespaces of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One way to run a mesh. Raises ProgrammingError for what does not go together."""

    transport: Transport = Transport.INPROC
    ground: Ground = Ground.SIMULATED
    programs: bool = False
    """Registry, managers, forwarders and endpoints are processes of their own, started by `nsm run`."""

    def __post_init__(self) -> None:
        if self.programs and self.transport is Transport.INPROC:
            raise ProgrammingError("programs cannot call each other in process", hint="use unix sockets or TCP")
        if self.programs and self.ground is Ground.MEMORY:
            raise ProgrammingError(
                "programs cannot share a kernel in memory", hint="use the simulated datapath or namespaces"
            )

    @property
    def virtual(self) -> bool:
        """Whether this mode works in virtual time."""
        return self.transport is Transport.INPROC and self.ground is not Ground.KERNEL

    def why_not(self) -> str:
        """Why this machine cannot do it, as one clause; empty where it can. Blocks for a fraction of a second."""
        if self.ground is not Ground.KERNEL:
            return ""
        found = probe_now()
        lacking = [found[name] for name in ("namespaces", "veth", "icmp") if not found.works(name)]
        return lacking[0].reason if lacking else ""

    def __str__(self) -> str:
        where = "programs" if self.programs else "one process"
        return f"{where}, {self.transport}, {self.ground}"


INPROC: Final = Mode()
"""One process, nothing but messages."""
MEMORY: Final = Mode(ground=Ground.MEMORY)
"""One process, with interfaces of a kernel in memory."""
UNIX: Final = Mode(transport=Transport.UNIX)
TCP: Final = Mode(transport=Transport.TCP)
NAMESPACES: Final = Mode(transport=Transport.UNIX, ground=Ground.KERNEL)
"""One process, real sockets, real packets. Needs root."""
PROGRAMS: Final = Mode(transport=Transport.UNIX, ground=Ground.KERNEL, programs=True)
"""A process for each hop, real packets. Needs root."""
PROGRAMS_TCP: Final = Mode(transport=Transport.TCP, ground=Ground.KERNEL, programs=True)
PROGRAMS_SIMULATED: Final = Mode(transport=Transport.UNIX, programs=True)
"""A process for each hop, no packets, no privileges."""
