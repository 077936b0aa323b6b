# SPDX-License-Identifier: Apache-2.0
"""What the next hop answers is not believed unseen.

Does:  sees that an answer is about the connection that was sent: the path up to this hop must be as it was. Then id and
       index are set to this hop's, whatever the answer says. What is too much of anything is refused.
Place: `Connect`, before anything here goes by the answer: else a next hop could speak for connections of others.
State: none.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Snapshot, describe
from nsm_sdk.api.limits import excess
from nsm_sdk.core import Call
from nsm_sdk.errors import DataLoss

_HINT = "the next hop is not to be relied upon: look at its log, and at its version"


class Asked:
    """What is sent, as far as the answer must agree with it."""

    __slots__ = ("id", "index", "way")

    def __init__(self, conn: Connection) -> None:
        self.id = conn.id
        self.index = conn.path.index
        self.way = [(hop.name, hop.id) for hop in conn.path.path_segments[: self.index + 1]]

    def accept(self, call: Call, answer: Connection, url: str) -> Snapshot:
        """The answer of the hop at `url`, put right. DataLoss for one that is about something else."""
        path = answer.path
        way = [(hop.name, hop.id) for hop in path.path_segments[: self.index + 1]]
        if way != self.way:
            raise DataLoss(
                f"{url} was asked for connection {self.id!r} and answered with another: {describe(answer)}", hint=_HINT
            )
        if answer.id != self.id:
            answer.id = self.id
        if path.index != self.index:
            path.index = self.index
        snapshot = call.snapshot(answer)
        what = excess(answer, len(snapshot.data))
        if what:
            raise DataLoss(f"{url} answered too much for connection {self.id!r}: {what}", hint=_HINT)
        return snapshot
