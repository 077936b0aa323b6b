# SPDX-License-Identifier: Apache-2.0
"""A connection as it is stored between calls.

Does:  holds a connection as serialised bytes with its id and path index, and gives a fresh message each time it is
       asked. It is replaced, never edited.
Place: wherever a connection outlives a call (begin, connect, monitor, heal). A live message never gives memory back
       when it is copied onto again and again, and costs about twice its bytes.
State: immutable.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nsm_sdk.api._gen.connection import Connection


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stored connection. Two are equal when their connections are."""

    data: bytes = field(repr=False)
    """The serialised connection, map keys sorted, unknown fields kept."""
    id: str = field(compare=False)
    """The connection's id."""
    index: int = field(compare=False, repr=False)
    """The path index; 0 when there is no path."""

    @classmethod
    def of(cls, conn: Connection) -> Snapshot:
        """What `conn` is now; later changes of the message are not seen."""
        return cls(conn.SerializeToString(deterministic=True), conn.id, conn.path.index)

    def connection(self) -> Connection:
        """A new message, the caller's own."""
        return Connection.FromString(self.data)
