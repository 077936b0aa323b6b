# SPDX-License-Identifier: Apache-2.0
"""Which client a connection belongs to, and whether that client lives elsewhere.

Does:  knows a client again by the first segment of the path, the subject of its token and how far the path has come,
       though the connection has another id; a forwarder may stand twice in one path. Two namespaces that hold
       processes are two living clients of one name: the second is refused. One that is gone or empty is left, and in
       the same namespace the newer one takes over.
Place: below both datapaths and the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from nsm_sdk.api import Connection, expiry
from nsm_sdk.api.tokens import subject
from nsm_sdk.errors import AlreadyExists


@dataclass(frozen=True, slots=True)
class Client:
    """Name and id of the path's first segment, subject of its token, and the index of this hop in the path."""

    name: str
    id: str
    subject: str
    index: int

    @classmethod
    def of(cls, conn: Connection) -> Client | None:
        """Whose connection it is; None for one without a path."""
        segments = conn.path.path_segments
        if not segments:
            return None
        return cls(segments[0].name, segments[0].id, subject(segments[0].token), conn.path.index)


def refreshed_until(conn: Connection) -> float:
    """Wall time until which the client has said that it lives; 0 where it does not say."""
    segments = conn.path.path_segments
    return (expiry(segments[0]) or 0.0) if segments else 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """One connection that a client has: in which namespace (its identity, its URL), and until when it is refreshed."""

    connection: str
    place: Hashable
    url: str
    until: float


def former(
    client: Client,
    connection: str,
    place: Hashable,
    held: Iterable[Held],
    *,
    occupied: Callable[[Held], bool],
    now: Callable[[], float],
) -> list[str]:
    """Ids of the connections that `connection` of the same client, in the namespace `place`, takes the place of.

    AlreadyExists where one of them is refreshed and its namespace, another one, is `occupied`.
    """
    found: list[str] = []
    for one in held:
        if one.place != place and one.until and one.until > now() and occupied(one):
            raise AlreadyExists(
                f"another client of the name {client.name!r} lives in network namespace {one.url} and has the "
                f"connection {client.id!r}",
                hint="give each client of a manager a name of its own (NSM_NAME), or end the other one",
            )
        if one.connection != connection:
            found.append(one.connection)
    return found


def has_processes(dev: int, ino: int) -> bool:
    """Whether a process, or a thread of one, is in that namespace; of those that this program may look at."""
    for process in _numbers("/proc"):
        if _is_in(f"/proc/{process}/ns/net", dev, ino):
            return True
        # A program may have sent a thread there and stay elsewhere itself.
        threads = _numbers(f"/proc/{process}/task")
        if any(_is_in(f"/proc/{process}/task/{one}/ns/net", dev, ino) for one in threads if one != process):
            return True
    return False


def _numbers(folder: str) -> list[str]:
    with suppress(OSError):
        return [name for name in os.listdir(folder) if name.isdigit()]
    return []


def _is_in(path: str, dev: int, ino: int) -> bool:
    with suppress(OSError):
        found = os.stat(path)
        return (found.st_dev, found.st_ino) == (dev, ino)
    return False
