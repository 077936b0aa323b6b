# SPDX-License-Identifier: Apache-2.0
"""What a double has seen.

Does:  `Seen` counts calls and keeps each of them, with copies of the messages, in the order in which they arrived.
Place: attribute `seen` of every double.
State: grows with each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nsm_sdk.api import Connection, Message, Request
from nsm_sdk.core import Call, Cause, Peer


@dataclass(slots=True, kw_only=True)
class Passed:
    """One call that passed; messages are copies."""

    verb: str
    message: Any
    """What was handed down: Request, Connection, registry entry, Query, Selector."""
    cause: Cause
    url: str
    deadline: float
    peer: Peer
    metadata: Mapping[str, str]
    answer: Any = None
    """What came back; None while it runs, after a failure, and for verbs that answer nothing."""
    error: BaseException | None = None

    @property
    def connection(self) -> Connection:
        """The connection in the message of a `request` or `close`."""
        connection: Connection = self.message.connection if isinstance(self.message, Request) else self.message
        return connection


@dataclass(slots=True)
class Seen:
    """All calls that passed."""

    calls: list[Passed] = field(default_factory=list)

    def note(self, verb: str, call: Call, message: Any) -> Passed:
        """Add one call."""
        passed = Passed(
            verb=verb,
            message=copied(message),
            cause=call.cause,
            url=call.url,
            deadline=call.deadline,
            peer=call.peer,
            metadata=dict(call.metadata),
        )
        self.calls.append(passed)
        return passed

    def of(self, verb: str) -> list[Passed]:
        """The calls of one verb."""
        return [passed for passed in self.calls if passed.verb == verb]

    @property
    def verbs(self) -> list[str]:
        """Verbs in order of arrival."""
        return [passed.verb for passed in self.calls]

    @property
    def requests(self) -> int:
        """How many requests arrived."""
        return len(self.of("request"))

    @property
    def closes(self) -> int:
        """How many closes arrived."""
        return len(self.of("close"))


def copied(message: Any) -> Any:
    """A copy of a protobuf message; anything else as it is."""
    if not isinstance(message, Message):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
