# SPDX-License-Identifier: Apache-2.0
"""One end of a kernel connection while it is worked on.

Does:  finds the link under the wanted name, builds on a new one, repairs one that is there until nothing differs, and
       says in words what a namespace refuses.
Place: under the kernel datapath; runs on the netlink thread.
State: the namespace, what is wanted in it, and the link's index once it is known.
"""

from __future__ import annotations

from nsm_sdk.errors import FailedPrecondition, NsmError
from nsm_sdk.mechanisms.desired import Desired, diff
from nsm_sdk.mechanisms.ledger import RecordedEnd
from nsm_sdk.mechanisms.model import Add, Failure, Link, MakeLink, Observed, Op, Remove
from nsm_sdk.mechanisms.ports import Namespace
from nsm_sdk.mechanisms.tags import Tag

_ROUNDS = 3


def is_ours(link: Link, mac: str, alias: str) -> bool:
    """Ours: the alias says so; or there is none yet (we stopped between the two) and the MAC says so."""
    return link.alias == alias or (not link.alias and link.mac == mac)


class Side:
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

    def build(self) -> None:
        """Sets up a link that was made a moment ago: nothing is there but what its making gave it."""
        link = Link(name=self.want.name, mac=self.want.mac, mtu=self.want.mtu, up=False)
        failures = self._apply(diff(self.want, Observed(link=link)))
        if failures:
            raise self._explain(failures[0])
        if self.want.rules:
            self.settle()

    def settle(self) -> bool:
        """Repairs until nothing differs; whether there was anything to do.

        Removing an address may take routes along, so it looks again.
        """
        failures: list[Failure] = []
        for turn in range(_ROUNDS):
            ops = diff(self.want, self.namespace.observe(self.index, self.want.tables))
            if not ops:
                return turn > 0
            failures = self._apply(ops)
        if failures:
            raise self._explain(failures[0])
        left = diff(self.want, self.namespace.observe(self.index, self.want.tables))
        if left:
            raise FailedPrecondition(
                f"namespace {self.namespace.url} does not keep what is set there: {left[0]}",
                hint="see which other program changes that interface",
            )
        return True

    def _apply(self, ops: list[Op]) -> list[Failure]:
        if ops and isinstance(ops[0], MakeLink):
            raise FailedPrecondition(
                f"interface {self.want.name!r} vanished from namespace {self.namespace.url} while it was set up",
                hint="see which other program deletes it",
            )
        return self.namespace.apply(self.index, ops) if ops else []

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
