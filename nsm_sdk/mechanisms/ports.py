# SPDX-License-Identifier: Apache-2.0
"""What this room needs from outside: a kernel to talk to, and a datapath to join connections with.

Does:  Protocols only. `Netlink` owns one thread; functions handed to `run` do their work there, one after the other,
       on a `Kernel`; `nsm_sdk.netlink` has the real one and a fake in memory. `Datapath` is what `Join`
       uses; `KernelDatapath` and `SimulatedDatapath` implement it.
Place: above nothing; adapters implement these structurally.
State: none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.mechanisms.model import Address, Failure, Link, NamespaceId, Observed, Op

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEnd:
    """One end of a pair that is to be made. `mtu` 0: the kernel's default."""

    name: str
    mac: str
    mtu: int = 0


class Namespace(Protocol):
    """A network namespace, open; used only inside `Netlink.run`."""

    @property
    def id(self) -> NamespaceId:
        """Which one it is, whatever it is called."""

    @property
    def url(self) -> str:
        """As it was given."""

    def links(self) -> list[Link]:
        """All links, the loopback too."""

    def link(self, *, name: str = "", index: int = 0) -> Link | None:
        """The link of that name or index, or None."""

    def observe(self, index: int, tables: range) -> Observed:
        """What there is of the link `index` (0: none) and of the rules that look up one of `tables`."""

    def apply(self, index: int, ops: Sequence[Op]) -> list[Failure]:
        """Does `ops` on link `index` in order; what is there or gone already counts as done.

        What others have made on that link stays, also where the kernel takes it along with something of ours.
        """

    def wake(self, index: int) -> None:
        """Have the kernel deal with the carrier of a link now, which it would do later by itself: until then an
        interface that is up drops what it should send."""
        ...

    def wait_reachable(self, addresses: Sequence[Address]) -> None:
        """Waits, a second at most, until what was added is answered for: the kernel does so later than it says."""

    def delete_link(self, index: int) -> bool:
        """Deletes the link and its peer; False when it was gone."""

    def forward(self, names: Sequence[str]) -> None:
        """Lets what comes in by these links leave by another, also where an address of this namespace stands in it:
        policy rules of a priority below 100 go before the namespace's own addresses. PermissionDenied where it may not
        be changed."""


class Kernel(Protocol):
    """The machine's namespaces; used only inside `Netlink.run`."""

    def open(self, url: str | int) -> Namespace:
        """The namespace at a `file://` URL, a path, or an open descriptor.

        InvalidRequest for a URL that can never be a namespace; FailedPrecondition where it is gone.
        """

    def occupied(self, dev: int, ino: int) -> bool:
        """Whether a process is in that namespace, as far as this program may look."""

    def join(self, near: Namespace, a: NewEnd, far: Namespace, b: NewEnd) -> tuple[int, int]:
        """Makes one veth pair with an end in each namespace; returns the indexes. AlreadyExists for a taken name."""


class LinkEvent(Protocol):
    """Something happened in a namespace.

    `kind`: up, down, deleted, address-added, address-removed, lost (events were dropped: look for yourself).
    """

    @property
    def kind(self) -> str:
        """What happened."""

    @property
    def index(self) -> int:
        """Of the link; 0 where there is none."""

    @property
    def name(self) -> str:
        """Of the link; may be empty."""

    @property
    def address(self) -> str:
        """The one that came or went, with prefix length; else empty."""


class LinkWatch(Protocol):
    """An async iterator of events; close it when done."""

    def __aiter__(self) -> AsyncIterator[LinkEvent]: ...
    async def __anext__(self) -> LinkEvent: ...
    async def aclose(self) -> None:
        """Stops watching."""


class Netlink(Protocol):
    """All netlink of one forwarder."""

    async def run(self, fn: Callable[[Kernel], T]) -> T:
        """Runs `fn` on the netlink thread. A caller that is cancelled does not stop a function that has begun."""

    async def watch(self, url: str | int) -> LinkWatch:
        """Events of a namespace from now on; the caller closes it."""

    async def aclose(self) -> None:
        """Ends after what has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """A connection with both its ends: the forwarder's view after the far side has answered."""

    connection: Connection = field(repr=False)
    near: Mechanism
    far: Mechanism

    @property
    def id(self) -> str:
        """The connection's id at the forwarder."""
        return self.connection.id

    @property
    def segment(self) -> str:
        """The id of the path's first segment."""
        segments = self.connection.path.path_segments
        return segments[0].id if segments else self.connection.id


class Datapath(Protocol):
    """Joins the two ends of connections, and says which mechanisms these can have."""

    @property
    def needs_mechanism(self) -> bool:
        """Whether both ends must have one; False: a connection is joined as it comes, where one or both have none."""

    def accepted(self, conn: Connection) -> Collection[str]:
        """The types of mechanisms that the client's side of `conn` can have, as far as its payload allows them."""

    def offered(self, conn: Connection) -> Sequence[Mechanism]:
        """What the endpoint's side can have, the best first, given the payload of `conn` and its mechanism, which is
        the client's. What cannot be built just now is left out, so the endpoint takes the next best."""

    def claim(self, connection: str) -> Mechanism | None:
        """Somebody asks for the connection of that id: what an earlier run left of it is no orphan. Returns the far
        side's mechanism as it was joined; None where nothing is known of the connection."""

    async def admit(self, conn: Connection) -> list[str]:
        """Before the endpoint is asked, at each request: ids of connections that the same client has left, and this one
        replaces.

        `conn.mechanism` is the one that is tried at the client's side. Whatever this side has to say in it, like the
        address and number of a tunnel, is written there, always the same for one connection; `part` releases it.
        AlreadyExists where another client of that name lives in another namespace; any other NsmError where the
        mechanism cannot be had, then the client's next preference is tried.
        """

    async def join(self, joint: Joint) -> list[str]:
        """Makes it so, or verifies and repairs; repeated for every refresh. Returns what it has replaced, as `admit`
        does, with the same error."""

    async def part(self, conn: Connection) -> None:
        """Removes what there is of the connection; fine when there is nothing, or a namespace is gone."""

    async def sweep(self) -> list[str]:
        """Removes what an earlier run left and no Request has claimed; the ids of what went."""

    def ids(self) -> Iterable[str]:
        """The connections that are joined now."""
