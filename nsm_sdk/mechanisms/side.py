# SPDX-License-Identifier: Apache-2.0
"""One end of a kernel connection while it is worked on.

Does:  finds the link under the wanted name, builds on a new one, repairs one that is there until nothing differs, and
       says in words what a namespace refuses.
Place: under the kernel datapath; runs on the netlink thread.
State: the namespace, what is wanted in it, the link's index once it is known, and the neighbours that are reached by
       broadcast while the other end's MAC changes.
"""

from __future__ import annotations

from nsm_sdk.errors import FailedPrecondition, NsmError
from nsm_sdk.mechanisms.desired import Desired, diff, placed
from nsm_sdk.mechanisms.ledger import RecordedEnd
from nsm_sdk.mechanisms.model import Add, Failure, Link, MakeLink, Neighbour, Observed, Op, Remove, SetLink
from nsm_sdk.mechanisms.ports import Namespace
from nsm_sdk.mechanisms.tags import Tag

_ROUNDS = 3
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
