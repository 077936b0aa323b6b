# SPDX-License-Identifier: Apache-2.0
"""The kernel datapath: one veth pair for each connection, one end in each side's namespace.

Does:  `join` makes the pair, or finds it again (by record, then by tag) and repairs what differs; `part` removes links
       and rules that carry this connection's tag, with or without records and namespaces; `sweep` removes what an
       earlier run left behind and no Request has claimed since.
       A side is one end while it is worked on: it is built, or repaired until nothing differs.
Place: behind the element Join. Everything is one function run on the netlink thread, so a Close that follows a
       cancelled Request waits for it.
State: the ledger (records on disk), and the ids claimed in this run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from nsm_sdk.api import KERNEL, LOCAL, Connection, Mechanism
from nsm_sdk.core import Runtime, Service
from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NsmError
from nsm_sdk.mechanisms.clients import Client, Held, former, refreshed_until
from nsm_sdk.mechanisms.desired import Desired, desired, diff, placed
from nsm_sdk.mechanisms.ledger import Ledger, Record, RecordedEnd
from nsm_sdk.mechanisms.model import Add, Failure, Link, MakeLink, Neighbour, Observed, Op, Remove, SetLink
from nsm_sdk.mechanisms.ports import Joint, Kernel, Namespace, Netlink, NewEnd
from nsm_sdk.mechanisms.tags import CLIENT_SIDE, ENDPOINT_SIDE, Tag, parse_alias

logger = logging.getLogger("nsm_sdk.mechanisms")
LAPSED_GRACE = 15.0
"""Seconds that clients whose tokens ended while the forwarder was away get to come back: they ask again sooner."""
_ROUNDS = 3
"""Repairs of one side before it is given up: removing an address may take routes along."""
_EVERYBODY = "ff:ff:ff:ff:ff:ff"


def is_ours(link: Link, mac: str, alias: str) -> bool:
    """Ours: the alias says so; or there is none yet (we stopped between the two) and the MAC says so."""
    return link.alias == alias or (not link.alias and link.mac == mac)


class Side:
    """One end while it is worked on."""

    __slots__ = ("blurred", "index", "namespace", "tag", "want")

    def __init__(self, namespace: Namespace, want: Desired, tag: Tag) -> None:
        self.namespace = namespace
        self.want = want
        self.tag = tag
        self.index = 0
        self.blurred: list[Neighbour] = []

    def find(self) -> Link | None:
        """The link that is this end, under the wanted name or another; None where there is none."""
        link = self.standing()
        if link is None or not is_ours(link, self.want.mac, self.want.alias):
            link = next((one for one in self.namespace.links() if one.alias == self.want.alias), None)
        return link

    def standing(self) -> Link | None:
        """The link that stands under the wanted name, whosever it is."""
        return self.namespace.link(name=self.want.name)

    def build(self) -> None:
        """Sets up a link that was made a moment ago: nothing is there but what its making gave it."""
        link = Link(name=self.want.name, mac=self.want.mac, mtu=self.want.mtu, up=False)
        self._do(diff(self.want, Observed(link=link)))
        if self.want.rules:
            self.settle()

    def blur(self, mac: str) -> None:
        """Has frames for `mac`, which the other end is about to give up, sent to its interface whatever its MAC is."""
        seen = self.namespace.observe(self.index, range(0)).neighbours
        known = [one for one in seen if one.mac == mac and (one.ours or not one.permanent)]
        self.blurred = [Neighbour(one.ip, _EVERYBODY, permanent=True) for one in known]
        self._do([Add(one) for one in self.blurred])

    def set_mac(self) -> None:
        """Gives the interface the wanted MAC. The kernel forgets all neighbours then."""
        self._do([SetLink(mac=self.want.mac), *(Add(one) for one in self.blurred)])

    def settle(self) -> bool:
        """Repairs until nothing differs; whether there was anything to do.

        Removing an address may take routes along, so it looks again.
        """
        failures: list[Failure] = []
        for turn in range(_ROUNDS):
            ops = self._changes()
            if not ops:
                return turn > 0
            failures = self._apply(ops)
        if failures:
            raise self._explain(failures[0])
        left = self._changes()
        if left:
            raise FailedPrecondition(
                f"namespace {self.namespace.url} does not keep what is set there: {left[0]}",
                hint="see which other program changes that interface",
            )
        return True

    def _changes(self) -> list[Op]:
        seen = self.namespace.observe(self.index, self.want.tables)
        return diff(placed(self.want, seen), seen)

    def _apply(self, ops: list[Op]) -> list[Failure]:
        if ops and isinstance(ops[0], MakeLink):
            raise FailedPrecondition(
                f"interface {self.want.name!r} vanished from namespace {self.namespace.url} while it was set up",
                hint="see which other program deletes it",
            )
        # where something new is refused nothing old goes
        first = next((at for at, op in enumerate(ops) if isinstance(op, Remove)), len(ops))
        for part in (ops[:first], ops[first:]):
            failures = self.namespace.apply(self.index, part) if part else []
            if failures:
                return failures
        return []

    def _do(self, ops: list[Op]) -> None:
        failures = self._apply(ops)
        if failures:
            raise self._explain(failures[0])

    def recorded(self) -> RecordedEnd:
        """What the ledger keeps of it."""
        tables = self.want.tables
        return RecordedEnd(
            role=self.tag.role,
            url=self.namespace.url,
            dev=self.namespace.id.dev,
            ino=self.namespace.id.ino,
            name=self.want.name,
            mac=self.want.mac,
            alias=self.want.alias,
            tables=(tables.start, tables.stop) if self.want.rules else (0, 0),
            addresses=tuple(one.ip for one in self.want.addresses),
        )

    def _explain(self, failure: Failure) -> NsmError:
        match failure.op:
            case Add(thing) | Remove(thing):
                what = str(thing)
            case _:
                what = str(failure.op)
        return FailedPrecondition(
            f"namespace {self.namespace.url} refuses {what} on {self.want.name!r}: {failure.text}",
            hint="see whether the endpoint's addresses, routes and MTU fit this machine",
        )


class KernelDatapath(Service):
    """Joins namespaces with veth pairs. `state`: the folder of its records, None for memory only.

    `orphan_timeout`: seconds from the start, and from then on, after which what nobody has claimed is removed; None:
    never.
    """

    needs_mechanism = True

    def __init__(
        self, netlink: Netlink, *, name: str, state: Path | None = None, orphan_timeout: float | None = None
    ) -> None:
        self.name = name
        self.state = state
        self.orphan_timeout = orphan_timeout
        self._netlink = netlink
        self._ledger = Ledger(None)
        self._claimed: set[str] = set()
        self._unclaimed: set[str] = set()
        """Of the records, those of an earlier run that nobody has asked for since."""
        self._wall = time.time

    async def start(self, runtime: Runtime) -> None:
        """Reads the records; FailedPrecondition where the folder cannot be used."""
        self._ledger = await self._netlink.run(lambda _: Ledger(self.state))
        self._claimed.clear()
        self._unclaimed = set(self.ids())
        self._wall = lambda: runtime.clock.wall()
        if self.orphan_timeout is not None:
            if self.orphan_timeout > LAPSED_GRACE:
                self._plan(runtime, LAPSED_GRACE, self._lapsed)
            self._plan(runtime, self.orphan_timeout, self._sweep, again=True)

    def _plan(self, runtime: Runtime, seconds: float, work: Callable[[Kernel], object], *, again: bool = False) -> None:
        async def sweep() -> None:
            try:
                await self._netlink.run(work)
            except NsmError as error:
                logger.warning("forwarder %s: sweep of orphans: %s", self.name, error)
            if again:
                self._plan(runtime, seconds, work, again=True)

        runtime.after(seconds, lambda: runtime.spawn(sweep, "sweep of orphans"))

    async def stop(self) -> None:
        """Ends the netlink thread; what is joined stays joined."""
        await self._netlink.aclose()

    def accepted(self, conn: Connection) -> Collection[str]:
        """Kernel interfaces only."""
        return (KERNEL,)

    def offered(self, conn: Connection) -> Sequence[Mechanism]:
        """A kernel interface; the endpoint names it and its namespace."""
        return (Mechanism(cls=LOCAL, type=KERNEL),)

    def claim(self, connection: str) -> Mechanism | None:
        """Keeps what is recorded of a connection from the sweep, until it is parted. Returns the far end as a mechanism
        of its interface and namespace."""
        record = self._ledger.get(connection)
        if record is None:
            return None
        self._claims(connection)
        end = record.end(ENDPOINT_SIDE)
        if end is None:
            return None
        return Mechanism(cls=LOCAL, type=KERNEL, parameters={"name": end.name, "inodeURL": end.url})

    def _claims(self, connection: str) -> None:
        self._claimed.add(connection)
        self._unclaimed.discard(connection)

    async def admit(self, conn: Connection) -> list[str]:
        """Ids of the connections that the same client has left behind and this one replaces.

        AlreadyExists where a living client of that name has it in another namespace.
        """
        client, url = Client.of(conn), conn.mechanism.parameters.get("inodeURL", "")
        held = self._ledger.of(client) if client is not None and url else []
        if client is None or all(record.connection == conn.id and _near_url(record) == url for record in held):
            return []
        known = client
        return await self._netlink.run(lambda kernel: self._former(kernel, known, conn.id, kernel.open(url)))

    async def join(self, joint: Joint) -> list[str]:
        """Makes interfaces, addresses and routes as wanted, or verifies and repairs them. Returns the ids of
        connections whose place this one has taken."""

        def work(kernel: Kernel) -> list[str]:
            # reading the connection is work too, and a hundred of them may come at once
            near, far = (self._side(kernel, joint, role) for role in (CLIENT_SIDE, ENDPOINT_SIDE))
            record = Record(
                connection=joint.id,
                forwarder=self.name,
                ends=(near.recorded(), far.recorded()),
                client=Client.of(joint.connection),
                until=refreshed_until(joint.connection),
            )
            gone = [] if record.client is None else self._former(kernel, record.client, joint.id, near.namespace)
            self._claims(joint.id)
            for other in [*gone, *self._in_the_way(record)]:
                self._replace(kernel, other)
            self._join(kernel, record, near, far)
            return gone

        return await self._netlink.run(work)

    async def part(self, conn: Connection) -> None:
        """Removes all that bears the tag of the connection; fine when there is nothing."""
        urls = [conn.mechanism.parameters.get("inodeURL", "")]
        # what cannot be removed now is an orphan: tried again by whoever closes, and by the next sweep
        self._claimed.discard(conn.id)
        if self._ledger.get(conn.id) is not None:
            self._unclaimed.add(conn.id)
        await self._netlink.run(lambda kernel: self._part(kernel, conn.id, urls))

    async def sweep(self) -> list[str]:
        """Removes what is recorded or tagged as this forwarder's and was not claimed; the ids of what went."""
        return await self._netlink.run(self._sweep)

    def ids(self) -> Iterable[str]:
        """The connections that have a record."""
        return [record.connection for record in self._ledger.all()]

    # everything below runs on the netlink thread

    def _side(self, kernel: Kernel, joint: Joint, role: str) -> Side:
        mechanism = joint.near if role == CLIENT_SIDE else joint.far
        tag = Tag(forwarder=self.name, role=role, segment=joint.segment, connection=joint.id)
        want = desired(joint.connection, mechanism, tag)
        url = mechanism.parameters.get("inodeURL", "")
        if not url:
            raise InvalidRequest(
                f"the {role} side's mechanism names no network namespace",
                hint="give the mechanism parameter 'inodeURL', like file:///run/netns/NAME",
            )
        return Side(kernel.open(url), want, tag)

    def _former(self, kernel: Kernel, client: Client, connection: str, near: Namespace) -> list[str]:
        held = (
            Held(record.connection, end.place, end.url, record.until)
            for record in self._ledger.of(client)
            if (end := record.end(CLIENT_SIDE)) is not None
        )

        def occupied(one: Held) -> bool:
            record = self._ledger.get(one.connection)
            end = None if record is None else record.end(CLIENT_SIDE)
            return end is not None and kernel.occupied(*end.place)

        place = (near.id.dev, near.id.ino)
        return former(client, connection, place, held, occupied=occupied, now=self._wall)

    def _in_the_way(self, record: Record) -> list[str]:
        """Connections of an earlier run that nobody has asked for since, and whose addresses the endpoint has given to
        this one, or whose client's time is over, in one of the two namespaces."""
        near, far = record.ends
        source, target = set(near.addresses), set(far.addresses)
        found: list[str] = []
        for connection in list(self._unclaimed):
            other = self._ledger.get(connection)
            if other is None or connection == record.connection:
                continue
            theirs_near, theirs_far = other.end(CLIENT_SIDE), other.end(ENDPOINT_SIDE)
            if theirs_near is None or theirs_far is None or theirs_far.place != far.place:
                continue
            # Several clients may share the endpoint's own address, and nothing else.
            theirs = set(theirs_near.addresses)
            if self._has_lapsed(other) or source & (theirs | set(theirs_far.addresses)) or target & theirs:
                found.append(connection)
        return found

    def _has_lapsed(self, record: Record) -> bool:
        return 0.0 < record.until <= self._wall()

    def _replace(self, kernel: Kernel, connection: str) -> None:
        record = self._ledger.get(connection)
        if record is not None:
            logger.info("forwarder %s: what is left of connection %s makes way", self.name, connection)
            if errors := self._remove(kernel, record):
                raise errors[0]
            self._ledger.forget(connection)
        self._claimed.discard(connection)
        self._unclaimed.discard(connection)

    def _join(self, kernel: Kernel, record: Record, near: Side, far: Side) -> None:
        before = self._ledger.get(record.connection)
        known = before is not None and before.same_place(record)
        if before is not None and known:
            record = record.with_tables_of(before)
        elif before is not None:
            # a side has moved: the old pair is not this one
            self._remove(kernel, before)
        self._ledger.put(record, now=self._wall() if record.until else 0.0)
        if before is not None and known:
            if self._adopt(near, far):
                return
            # one of its links has gone: what is left of the pair is of no use
            self._remove(kernel, before)
        try:
            near.index, far.index = self._make(kernel, near, far)
        except AlreadyExists:
            if self._adopt(near, far):
                return
            for side in (near, far):
                self._clear(side)
            near.index, far.index = self._make(kernel, near, far)
        for side in (near, far):
            side.build()
        for side in (near, far):
            side.namespace.wait_reachable(side.want.addresses)
            side.namespace.wake(side.index)

    def _make(self, kernel: Kernel, near: Side, far: Side) -> tuple[int, int]:
        a, b = (NewEnd(name=side.want.name, mac=side.want.mac, mtu=side.want.mtu) for side in (near, far))
        return kernel.join(near.namespace, a, far.namespace, b)

    def _adopt(self, near: Side, far: Side) -> bool:
        """Whether the pair is there and ours; then it is made as it should be."""
        a, b = near.find(), far.find()
        if a is None or b is None or (a.peer, b.peer) != (b.index, a.index):
            return False
        near.index, far.index = a.index, b.index
        ends = [(near, far, a), (far, near, b)]
        for side, other, link in ends:
            if link.name != side.want.name:
                standing = side.standing()
                if standing is not None and standing.alias == other.want.alias:
                    # both ends are in one namespace and have changed names
                    return False
                self._clear(side)
        changing = [(side, other, link) for side, other, link in ends if link.alias and link.mac != side.want.mac]
        for _, other, link in changing:
            other.blur(link.mac)
        for side, _, _ in changing:
            side.set_mac()
        for side in (near, far):
            if side.settle():
                side.namespace.wait_reachable(side.want.addresses)
            side.namespace.wake(side.index)
        return True

    def _clear(self, side: Side) -> None:
        """Makes way for a link of the wanted name, where what stands there is ours."""
        link = side.standing()
        if link is None:
            return
        theirs = parse_alias(link.alias)
        mine = is_ours(link, side.want.mac, side.want.alias) or (
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
        self._unclaimed.discard(connection)

    def _remove(self, kernel: Kernel, record: Record) -> list[NsmError]:
        """Rules first, then the links; deleting one end deletes the other. What cannot be reached is gone."""
        errors: list[NsmError] = []
        for end in record.ends:
            try:
                namespace = _open(kernel, end.url)
                if namespace is None or (namespace.id.dev, namespace.id.ino) != (end.dev, end.ino):
                    continue
                link = namespace.link(name=end.name)
                if link is None or not is_ours(link, end.mac, end.alias):
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

    def _lapsed(self, kernel: Kernel) -> None:
        """Removes what an earlier run left of clients whose time is over: others get their addresses."""
        for connection in list(self._unclaimed):
            record = self._ledger.get(connection)
            if record is not None and self._has_lapsed(record):
                self._replace(kernel, connection)

    def _sweep(self, kernel: Kernel) -> list[str]:
        gone: list[str] = []
        records = self._ledger.all()
        for record in records:
            if record.connection not in self._claimed:
                if not self._remove(kernel, record):
                    self._ledger.forget(record.connection)
                    self._unclaimed.discard(record.connection)
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


def _near_url(record: Record) -> str:
    end = record.end(CLIENT_SIDE)
    return "" if end is None else end.url


def _open(kernel: Kernel, url: str) -> Namespace | None:
    # one that may not be opened is an error: otherwise its links would be forgotten
    try:
        return kernel.open(url)
    except (FailedPrecondition, InvalidRequest):
        return None
