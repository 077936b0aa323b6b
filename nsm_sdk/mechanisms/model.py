# SPDX-License-Identifier: Apache-2.0
"""What a network namespace holds, as values: links, addresses, routes, rules, neighbours, and changes to them.

Does:  names the things that desired and observed state are made of. Addresses are canonical text, families 4 and 6,
       MACs lower case with colons. `ours` tells what carries our protocol number from what others made.
Place: under `desired`, the ports and every adapter; no I/O.
State: none.
"""

from __future__ import annotations

from dataclasses import dataclass

OURS = 78
"""The protocol number on every address, route, rule and neighbour that we make; no routing daemon has it."""
MAIN_TABLE = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceId:
    """The identity of a network namespace: device and inode of its nsfs file. Inodes are reused after its end."""

    dev: int
    ino: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One interface. `peer` is the index of a veth's other end (in its own namespace), 0 where there is none."""

    name: str
    index: int = 0
    mac: str = ""
    alias: str = ""
    mtu: int = 1500
    up: bool = True
    carrier: bool = True
    kind: str = ""
    peer: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """An address with its prefix length, on the link in question."""

    ip: str
    prefix: int
    ours: bool = True

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.ip else 4

    @property
    def bits(self) -> int:
        """The length of an address of this family."""
        return 128 if ":" in self.ip else 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route over the link in question; with a gateway it is on-link, without one it has link scope.

    It stands beside others for the same destination and is preferred to those that were there before: in IPv4 as the
    newest, in IPv6 by its `metric`. So the route of somebody else comes back when ours goes.
    """

    dst: str
    prefix: int
    gateway: str = ""
    table: int = MAIN_TABLE
    metric: int = 0
    ours: bool = True

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.dst else 4

    @property
    def key(self) -> tuple[int, str, int]:
        """What one end needs only one route for."""
        return self.table, self.dst, self.prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A policy rule: what matches looks up `table`. Ports are inclusive ranges; 0 and None mean any. `enters`: the
    interface by which it came in; empty: any, or made here."""

    family: int
    priority: int
    table: int
    src: str = ""
    src_prefix: int = 0
    proto: int = 0
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    enters: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the neighbour table; `permanent` ones are never asked for again."""

    ip: str
    mac: str
    permanent: bool = False
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What there is of one end: its link (None: gone) and what hangs on it; rules are those of our own tables."""

    link: Link | None = None
    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    rules: frozenset[Rule] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeLink:
    """The link has to be made (by the joining of two ends), with its name and MAC."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLink:
    """Change these of a link's properties; None leaves one as it is."""

    name: str | None = None
    mac: str | None = None
    alias: str | None = None
    mtu: int | None = None
    up: bool | None = None


@dataclass(frozen=True, slots=True)
class Add:
    """Make this, or make it so where something of the same key exists."""

    thing: Address | Route | Rule | Neighbour


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove this; it being gone already is fine."""

    thing: Address | Route | Rule | Neighbour


Op = MakeLink | SetLink | Add | Remove


@dataclass(frozen=True, slots=True)
class Failure:
    """An op that the kernel refused, with its error number."""

    op: Op
    errno: int
    text: str
