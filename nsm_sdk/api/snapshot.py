# SPDX-License-Identifier: Apache-2.0
"""A connection as it is stored between calls.

Does:  holds a connection as serialised bytes with its id, and gives a fresh message each time it is asked. It is
       replaced, never edited.
Place: wherever a connection outlives a call (begin, connect, monitor, heal). A live message never gives memory back
       when it is copied onto again and again, and costs about twice its bytes.
State: immutable.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import NoReturn, final

from nsm_sdk.api._gen.connection import Connection


@final
class Snapshot:
    """A stored connection. Two are equal when their connections are."""

    # Written by hand because every hop makes several of them for each request, and a frozen dataclass takes five times
    # as long to make.
    __slots__ = ("data", "id")

    data: bytes
    """The serialised connection, map keys sorted, unknown fields kept."""
    id: str
    """The connection's id."""

    @classmethod
    def of(cls, conn: Connection) -> Snapshot:
        """What `conn` is now; later changes of the message are not seen."""
        made = _new(cls)
        _set_data(made, conn.SerializeToString(deterministic=True))
        _set_id(made, conn.id)
        return made

    def connection(self) -> Connection:
        """A new message, the caller's own."""
        return Connection.FromString(self.data)

    def __eq__(self, other: object) -> bool:
        return self.data == other.data if isinstance(other, Snapshot) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.data)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __repr__(self) -> str:
        return f"Snapshot(id={self.id!r})"


_new = object.__new__
# The slots' own setters pass by `__setattr__`.
_set_data = vars(Snapshot)["data"].__set__
_set_id = vars(Snapshot)["id"].__set__
