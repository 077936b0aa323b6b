# SPDX-License-Identifier: Apache-2.0
"""A kernel in memory: namespaces, veth pairs, addresses, routes, rules, neighbours, events.

Does:  implements the Netlink port without threads, sockets or privileges, so that a whole datapath runs in virtual
       time. Behaves like the real one where the datapath can tell: names are taken, peers die together, the last
       address of a family takes its routes along, events are delivered.
Place: tests, and meshes in one process. Namespaces are made by `add_namespace`, or at first use with `create=True`.
State: the whole pretended machine.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from nsm_sdk.core import Mailbox
from nsm_sdk.errors import AlreadyExists, FailedPrecondition
from nsm_sdk.mechanisms.desired import apply, kind_of_change
from nsm_sdk.mechanisms.model import (
    Add,
    Address,
    Failure,
    Link,
    MakeLink,
    NamespaceId,
    Observed,
    Op,
    Remove,
    Rule,
    SetLink,
)
from nsm_sdk.mechanisms.ports import Kernel, Namespace, NewEnd
from nsm_sdk.netlink.namespaces import namespace_path
from nsm_sdk.netlink.watch import LinkEvent

T = TypeVar("T")


class FakeWatch(Mailbox[LinkEvent]):
    """Events of one fake namespace."""

    def __init__(self, owner: FakeNamespace) -> None:
        super().__init__()
        self._owner = owner

    async def aclose(self) -> None:
        self._owner.watches.discard(self)
        self.end()


class FakeNamespace:
    """One namespace; tests read and change `state` (by link index) and `rules` directly."""

    def __init__(self, url: str, inode: int) -> None:
        self.url = url
        self.id = NamespaceId(dev=4, ino=inode)
        self.state: dict[int, Observed] = {}
        self.rules: set[Rule] = set()
        self.forwarding: set[str] = set()
        self.peers: dict[int, tuple[FakeNamespace, int]] = {}
        self.watches: set[FakeWatch] = set()
        self.refuse: Callable[[Op], int] = lambda op: 0
        self.residents = 0
        """How many processes are said to be in it."""

    def links(self) -> list[Link]:
        """All links."""
        return [seen.link for seen in self.state.values() if seen.link is not None]

    def link(self, *, name: str = "", index: int = 0) -> Link | None:
        """The link of that name or index, or None."""
        return next((one for one in self.links() if (one.name == name if name else one.index == index)), None)

    def observe(self, index: int, tables: range) -> Observed:
        """What there is of a link, and the rules of these tables."""
        rules = frozenset(rule for rule in self.rules if rule.table in tables)
        seen = self.state.get(index)
        return replace(seen, rules=rules) if seen is not None else Observed(rules=rules)

    def apply(self, index: int, ops: Sequence[Op]) -> list[Failure]:
        """Does the operations in order; `refuse` may answer an errno instead."""
        failures: list[Failure] = []
        for _, alike in groupby(ops, key=kind_of_change):
            taken: list[Op] = []
            for op in alike:
                code = self.refuse(op) or self._refusal(index, op)
                if code:
                    failures.append(Failure(op, code, errno.errorcode.get(code, str(code))))
                elif isinstance(op, (Add, Remove)):
                    taken.append(op)
                else:
                    self._do(index, [op])
            if taken:
                self._do(index, taken)
        return failures

    def wake(self, index: int) -> None:
        """The carrier is always up to date here."""

    def wait_reachable(self, addresses: Sequence[Address]) -> None:
        """Everything is at once."""

    def _refusal(self, index: int, op: Op) -> int:
        """The errno of what cannot be done; 0 where it can."""
        if isinstance(op, (Add, Remove)) and isinstance(op.thing, Rule):
            return 0
        if isinstance(op, SetLink) and op.name is not None:
            standing = self.link(name=op.name)
            if standing is not None and standing.index != index:
                return errno.EEXIST
        if isinstance(op, MakeLink) or index not in self.state:
            return 0 if isinstance(op, Remove) else errno.ENODEV
        return 0

    def _do(self, index: int, ops: Sequence[Op]) -> None:
        """Does what is not refused, all of one kind."""
        for op in ops:
            if isinstance(op, (Add, Remove)) and isinstance(op.thing, Rule):
                (self.rules.add if isinstance(op, Add) else self.rules.discard)(op.thing)
        before = self.state.get(index)
        if before is None or kind_of_change(ops[0])[-1] is Rule:
            return
        after = apply(ops, before)
        for family in (4, 6):
            if _has_family(before, family) and not _has_family(after, family):
                after = replace(after, routes=frozenset(r for r in after.routes if r.family != family or not r.ours))
        if before.link is not None and after.link is not None and before.link.mac != after.link.mac:
            after = replace(after, neighbours=frozenset(one for one in after.neighbours if not one.ours))
        self.state[index] = after
        self._tell(index, before, after)

    def _tell(self, index: int, before: Observed, after: Observed) -> None:
        if before.link is not None and after.link is not None and before.link.up != after.link.up:
            self.emit(LinkEvent(kind="up" if after.link.up else "down", index=index, name=after.link.name))
            if index in self.peers:
                other, at = self.peers[index]
                other.carrier(at, after.link.up)
        for one in after.addresses - before.addresses:
            self.emit(LinkEvent(kind="address-added", index=index, address=one.ip))
        for one in before.addresses - after.addresses:
            self.emit(LinkEvent(kind="address-removed", index=index, address=one.ip))

    def carrier(self, index: int, on: bool) -> None:
        """The other end went up or down."""
        seen = self.state.get(index)
        if seen is not None and seen.link is not None and seen.link.carrier != on:
            self.state[index] = replace(seen, link=replace(seen.link, carrier=on))
            word = "up" if on and seen.link.up else "down"
            self.emit(LinkEvent(kind=word, index=index, name=seen.link.name))

    def delete_link(self, index: int) -> bool:
        """Deletes the link and its peer; False when it was gone."""
        seen = self.state.pop(index, None)
        if seen is None or seen.link is None:
            return False
        self.emit(LinkEvent(kind="deleted", index=index, name=seen.link.name))
        peer = self.peers.pop(index, None)
        if peer is not None:
            peer[0].delete_link(peer[1])
        return True

    def forward(self, names: Sequence[str]) -> None:
        """Notes the names in `forwarding`."""
        self.forwarding.update(names)

    def emit(self, event: LinkEvent) -> None:
        """Tells everybody who watches."""
        for watch in list(self.watches):
            watch.post(event)


def _has_family(seen: Observed, family: int) -> bool:
    return any(one.family == family for one in seen.addresses)


class FakeNetlink:
    """Implements the Netlink and Kernel ports. `create`: a namespace comes to be when first asked for."""

    def __init__(self, *, create: bool = False) -> None:
        self._create = create
        self._spaces: dict[str, FakeNamespace] = {}
        self._inodes = itertools.count(4_026_532_000)
        self._indexes = itertools.count(2)

    def add_namespace(self, url: str) -> FakeNamespace:
        """Makes an empty namespace at `url`."""
        path = namespace_path(url)
        space = FakeNamespace(url, next(self._inodes))
        self._spaces[path] = space
        return space

    def remove_namespace(self, url: str) -> None:
        """The namespace ends: its links go, and their peers with them."""
        space = self._spaces.pop(namespace_path(url), None)
        if space is not None:
            for index in list(space.state):
                space.delete_link(index)

    def open(self, url: str | int) -> FakeNamespace:
        """The namespace at `url`. FailedPrecondition where it is gone."""
        path = namespace_path(str(url))
        space = self._spaces.get(path)
        if space is None and self._create:
            space = self.add_namespace(str(url))
        if space is None:
            raise FailedPrecondition(
                f"namespace {str(url)[:120]!r} is gone", hint="see that its pod or process is still there"
            )
        return space

    def occupied(self, dev: int, ino: int) -> bool:
        """Whether a process is said to be in that namespace."""
        return any(one.residents > 0 and (one.id.dev, one.id.ino) == (dev, ino) for one in self._spaces.values())

    def join(self, near: Namespace, a: NewEnd, far: Namespace, b: NewEnd) -> tuple[int, int]:
        """Makes one pair with an end in each namespace; AlreadyExists for a taken name."""
        source, target = self._by_id(near), self._by_id(far)
        for space, end in ((source, a), (target, b)):
            if space.link(name=end.name) is not None or (source is target and a.name == b.name):
                raise AlreadyExists(
                    f"interface {end.name!r} exists already in namespace {space.url}",
                    hint="ask for another interface name, or remove that interface",
                )
        first, second = next(self._indexes), next(self._indexes)
        for space, end, index, peer, up in ((source, a, first, second, True), (target, b, second, first, False)):
            link = Link(
                name=end.name,
                index=index,
                mac=end.mac,
                mtu=end.mtu or 1500,
                up=up,
                carrier=not up,
                kind="veth",
                peer=peer,
            )
            space.state[index] = Observed(link=link)
        source.peers[first] = (target, second)
        target.peers[second] = (source, first)
        return first, second

    def _by_id(self, space: Namespace) -> FakeNamespace:
        return next(one for one in self._spaces.values() if one.id == space.id)

    async def run(self, fn: Callable[[Kernel], T]) -> T:
        """Runs `fn` at once."""
        await asyncio.sleep(0)
        result = fn(self)
        # as with a thread, a caller may be cancelled when the work is done already
        await asyncio.sleep(0)
        return result

    async def watch(self, url: str | int) -> FakeWatch:
        """Events of a namespace from now on."""
        space = self.open(url)
        watch = FakeWatch(space)
        space.watches.add(watch)
        return watch

    async def aclose(self) -> None:
        """Nothing to end."""
