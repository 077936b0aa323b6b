# SPDX-License-Identifier: Apache-2.0
"""The kernel datapath: one veth pair for each connection, one end in each side's namespace.

Does:  `join` makes the pair, or finds it again (by record, then by tag) and repairs what differs; `part` removes links
       and rules that carry this connection's tag, with or without records and namespaces; `sweep` removes what an
       earlier run left behind and no Request has claimed since.
Place: behind the element KernelForward. Everything is one function run on the netlink thread, so a Close that follows
       a cancelled Request waits for it.
State: the ledger (records on disk), and the ids claimed in this run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from nsm_sdk.api import Connection
from nsm_sdk.core import Runtime, Service
from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NsmError
from nsm_sdk.mechanisms.desired import Desired, desired, diff
from nsm_sdk.mechanisms.ledger import Ledger, Record, RecordedEnd
from nsm_sdk.mechanisms.model import Add, Failure, Link, MakeLink, Observed, Op, Remove, SetLink
from nsm_sdk.mechanisms.ports import Joint, Kernel, Namespace, Netlink, NewEnd
from nsm_sdk.mechanisms.tags import FAR, NEAR, Tag, parse_alias

logger = logging.getLogger("nsm_sdk.mechanisms")
_ROUNDS = 3


class _Side:
    """One end while it is worked on."""

    __slots__ = ("index", "namespace", "tag", "want")

    def __init__(self, namespace: Namespace, want: Desired, tag: Tag) -> None:
        self.namespace = namespace
        self.want = want
        self.tag = tag
        self.index = 0

    def find(self) -> Link | None:
        """The link that stands under the wanted name."""
        return self.namespace.link(name=self.want.name)


class KernelDatapath(Service):
    """Joins namespaces with veth pairs. `state`: the folder of its records, None for memory only.

    `orphan_timeout`: seconds from the start, and from then on, after which what nobody has claimed is removed; None:
    never.
    """

    def __init__(
        self, netlink: Netlink, *, name: str, state: Path | None = None, orphan_timeout: float | None = None
    ) -> None:
        self.name = name
        self.state = state
        self.orphan_timeout = orphan_timeout
        self._netlink = netlink
        self._ledger = Ledger(None)
        self._claimed: set[str] = set()

    async def start(self, runtime: Runtime) -> None:
        """Reads the records; FailedPrecondition where the folder cannot be used."""
        self._ledger = await self._netlink.run(lambda _: Ledger(self.state))
        self._claimed.clear()
        self._plan(runtime)

    def _plan(self, runtime: Runtime) -> None:
        async def sweep() -> None:
            try:
                await self.sweep()
            except NsmError as error:
                logger.warning("forwarder %s: sweep of orphans: %s", self.name, error)
            self._plan(runtime)

        if self.orphan_timeout is not None:
            runtime.after(self.orphan_timeout, lambda: runtime.spawn(sweep, "sweep of orphans"))

    async def stop(self) -> None:
        """Ends the netlink thread; what is joined stays joined."""
        await self._netlink.aclose()

    async def join(self, joint: Joint) -> None:
        """Makes interfaces, addresses and routes as wanted, or verifies and repairs them."""
        self._claimed.add(joint.id)

        def work(kernel: Kernel) -> None:
            # reading the connection is work too, and a hundred of them may come at once
            sides = [self._side(kernel, joint, role) for role in (NEAR, FAR)]
            self._join(kernel, joint.id, *sides)

        await self._netlink.run(work)

    async def part(self, conn: Connection) -> None:
        """Removes all that bears the tag of the connection; fine when there is nothing."""
        urls = [conn.mechanism.parameters.get("inodeURL", "")]
        # what cannot be removed now is an orphan: tried again by whoever closes, and by the next sweep
        self._claimed.discard(conn.id)
        await self._netlink.run(lambda kernel: self._part(kernel, conn.id, urls))

    async def sweep(self) -> list[str]:
        """Removes what is recorded or tagged as this forwarder's and was not claimed; the ids of what went."""
        return await self._netlink.run(self._sweep)

    def ids(self) -> Iterable[str]:
        """The connections that have a record."""
        return [record.connection for record in self._ledger.all()]

    # everything below runs on the netlink thread

    def _side(self, kernel: Kernel, joint: Joint, role: str) -> _Side:
        mechanism = joint.near if role == NEAR else joint.far
        tag = Tag(forwarder=self.name, role=role, segment=joint.segment, connection=joint.id)
        want = desired(joint.connection, mechanism, tag)
        url = mechanism.parameters.get("inodeURL", "")
        if not url:
            raise InvalidRequest(
                f"the {role} side's mechanism names no network namespace",
                hint="give the mechanism parameter 'inodeURL', like file:///run/netns/NAME",
            )
        return _Side(kernel.open(url), want, tag)

    def _join(self, kernel: Kernel, connection: str, near: _Side, far: _Side) -> None:
        record = Record(connection=connection, forwarder=self.name, ends=tuple(_recorded(side) for side in (near, far)))
        before = self._ledger.get(connection)
        known = before is not None and before.same_place(record)
        if before is not None and not known:
            # a side has moved or renamed: the old pair is not this one
            self._remove(kernel, before)
        self._ledger.put(record)
        if known and self._adopt(near, far):
            return
        try:
            near.index, far.index = self._make(kernel, near, far)
        except AlreadyExists:
            if self._adopt(near, far):
                return
            for side in (near, far):
                self._clear(side)
            near.index, far.index = self._make(kernel, near, far)
        for side in (near, far):
            link = Link(name=side.want.name, mac=side.want.mac, mtu=side.want.mtu, up=False)
            failures = self._apply(side, diff(side.want, Observed(link=link)))
            if failures:
                raise _explain(failures[0], side)
            if side.want.rules:
                self._settle(side)
        for side in (near, far):
            side.namespace.wait_reachable(side.want.addresses)
            # Until the kernel has dealt with the carrier, which it does later by itself, an interface that is up drops
            # what it should send; being asked for the interface makes it do so now.
            side.namespace.link(index=side.index)

    def _make(self, kernel: Kernel, near: _Side, far: _Side) -> tuple[int, int]:
        a, b = (NewEnd(name=side.want.name, mac=side.want.mac, mtu=side.want.mtu) for side in (near, far))
        return kernel.join(near.namespace, a, far.namespace, b)

    def _adopt(self, near: _Side, far: _Side) -> bool:
        """Whether the pair is there and ours; then it is made as it should be."""
        links = [side.find() for side in (near, far)]
        for side, link in zip((near, far), links, strict=True):
            if link is None or not _is(link, side.want.mac, side.want.alias):
                return False
            side.index = link.index
        if links[0] is None or links[1] is None or (links[0].peer, links[1].peer) != (far.index, near.index):
            return False
        for side in (near, far):
            if self._settle(side):
                side.namespace.wait_reachable(side.want.addresses)
            # Until the kernel has dealt with the carrier, which it does later by itself, an interface that is up drops
            # what it should send; being asked for the interface makes it do so now.
            side.namespace.link(index=side.index)
        return True

    def _clear(self, side: _Side) -> None:
        """Makes way for a link of the wanted name, where what stands there is ours."""
        link = side.find()
        if link is None:
            return
        theirs = parse_alias(link.alias)
        mine = _is(link, side.want.mac, side.want.alias) or (
            theirs is not None
            and (theirs.forwarder, theirs.role, theirs.segment) == (self.name, side.tag.role, side.tag.segment)
            and theirs.connection not in self._claimed
        )
        if not mine:
            raise AlreadyExists(
                f"interface {side.want.name!r} exists already in namespace {side.namespace.url}",
                hint="ask for another interface name, or remove that interface",
            )
        side.namespace.delete_link(link.index)

    def _settle(self, side: _Side) -> bool:
        """Repairs until nothing differs; whether there was anything to do.

        Removing an address may take routes along, so it looks again.
        """
        failures: list[Failure] = []
        for turn in range(_ROUNDS):
            ops = diff(side.want, side.namespace.observe(side.index, side.want.tables))
            if not ops:
                return turn > 0
            failures = self._apply(side, ops)
        if failures:
            raise _explain(failures[0], side)
        left = diff(side.want, side.namespace.observe(side.index, side.want.tables))
        if left:
            raise FailedPrecondition(
                f"namespace {side.namespace.url} does not keep what is set there: {left[0]}",
                hint="see which other program changes that interface",
            )
        return True

    def _apply(self, side: _Side, ops: list[Op]) -> list[Failure]:
        if ops and isinstance(ops[0], MakeLink):
            raise FailedPrecondition(
                f"interface {side.want.name!r} vanished from namespace {side.namespace.url} while it was set up",
                hint="see which other program deletes it",
            )
        return side.namespace.apply(side.index, ops) if ops else []

    def _part(self, kernel: Kernel, connection: str, urls: list[str]) -> None:
        record = self._ledger.get(connection)
        errors: list[NsmError] = []
        if record is not None:
            errors += self._remove(kernel, record)
        else:
            for url in filter(None, urls):
                namespace = _open(kernel, url)
                if namespace is not None:
                    for link in namespace.links():
                        tag = parse_alias(link.alias)
                        if tag is not None and (tag.forwarder, tag.connection) == (self.name, connection):
                            self._unrule(namespace, link.index, tag.tables)
                            namespace.delete_link(link.index)
        if errors:
            raise errors[0]
        self._ledger.forget(connection)

    def _remove(self, kernel: Kernel, record: Record) -> list[NsmError]:
        """Rules first, then the links; deleting one end deletes the other. What cannot be reached is gone."""
        errors: list[NsmError] = []
        for end in record.ends:
            try:
                namespace = _open(kernel, end.url)
                if namespace is None or (namespace.id.dev, namespace.id.ino) != (end.dev, end.ino):
                    continue
                link = namespace.link(name=end.name)
                if link is None or not _is(link, end.mac, end.alias):
                    # renamed by hand: the alias still tells
                    link = next((one for one in namespace.links() if one.alias == end.alias), None)
                index = link.index if link is not None else 0
                if end.tables[1]:
                    self._unrule(namespace, index, range(*end.tables))
                if link is not None:
                    namespace.delete_link(index)
            except NsmError as error:
                errors.append(error)
        return errors

    @staticmethod
    def _unrule(namespace: Namespace, index: int, tables: range) -> None:
        seen = namespace.observe(0, tables)
        if seen.rules:
            namespace.apply(index, [Remove(rule) for rule in seen.rules])

    def _sweep(self, kernel: Kernel) -> list[str]:
        gone: list[str] = []
        records = self._ledger.all()
        for record in records:
            if record.connection not in self._claimed:
                if not self._remove(kernel, record):
                    self._ledger.forget(record.connection)
                gone.append(record.connection)
        for url in {end.url for record in records for end in record.ends}:
            namespace = _open(kernel, url)
            for link in namespace.links() if namespace is not None else ():
                tag = parse_alias(link.alias)
                if namespace is None or tag is None or tag.forwarder != self.name or tag.connection in self._claimed:
                    continue
                self._unrule(namespace, link.index, tag.tables)
                if namespace.delete_link(link.index):
                    gone.append(tag.connection)
        if gone:
            logger.info("forwarder %s removed orphans of an earlier run: %s", self.name, ", ".join(gone))
        return gone


def _recorded(side: _Side) -> RecordedEnd:
    tables = side.want.tables
    return RecordedEnd(
        role=side.tag.role,
        url=side.namespace.url,
        dev=side.namespace.id.dev,
        ino=side.namespace.id.ino,
        name=side.want.name,
        mac=side.want.mac,
        alias=side.want.alias,
        tables=(tables.start, tables.stop) if side.want.rules else (0, 0),
    )


def _is(link: Link, mac: str, alias: str) -> bool:
    """Ours: the alias says so; or there is none yet (we stopped between the two) and the MAC says so."""
    return link.alias == alias or (not link.alias and link.mac == mac)


def _open(kernel: Kernel, url: str) -> Namespace | None:
    # one that may not be opened is an error: otherwise its links would be forgotten
    try:
        return kernel.open(url)
    except (FailedPrecondition, InvalidRequest):
        return None


def _explain(failure: Failure, side: _Side) -> NsmError:
    match failure.op:
        case Add(thing) | Remove(thing):
            what = str(thing)
        case SetLink():
            what = f"{failure.op}"
        case _:
            what = str(failure.op)
    return FailedPrecondition(
        f"namespace {side.namespace.url} refuses {what} on {side.want.name!r}: {failure.text}",
        hint="see whether the endpoint's addresses, routes and MTU fit this machine",
    )
