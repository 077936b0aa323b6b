# SPDX-License-Identifier: Apache-2.0
"""What the next hop answers is not believed unseen.

Does:  sees that an answer is about the connection that was sent: the path up to this hop must be as it was. Then id and
       index are set to this hop's, whatever the answer says. What is too much of anything is refused. A file that a Go
       peer passes beside the message gets its own URL back, and is never named to the peer without being passed.
Place: `Connect`, before anything here goes by the answer: else a next hop could speak for connections of others.
State: none.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from nsm_sdk.api import KERNEL, Connection, Kernel, Request, Snapshot, describe
from nsm_sdk.api.limits import excess
from nsm_sdk.core import Call
from nsm_sdk.errors import DataLoss

FILE = Kernel.netns_url.key
"""The mechanism parameter that names a file: a network namespace, or the socket of a memif interface."""
_INODE = "inode://"
_HINT = "the next hop is not to be relied upon: look at its log, and at its version"


class Asked:
    """What is sent, as far as the answer must agree with it."""

    __slots__ = ("files", "id", "index", "way")

    def __init__(self, request: Request) -> None:
        conn = request.connection
        self.files = asked_files(request)
        self.id = conn.id
        self.index = conn.path.index
        self.way = [(hop.name, hop.id) for hop in conn.path.path_segments[: self.index + 1]]

    def accept(self, call: Call, answer: Connection, url: str) -> tuple[Snapshot, PassedFile | None]:
        """The answer of the hop at `url`, put right, and the file of its mechanism that came without a name.

        DataLoss for one that is about something else.
        """
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
        passed = self._restore(answer)
        snapshot = call.snapshot(answer)
        what = excess(answer, len(snapshot.data))
        if what:
            raise DataLoss(f"{url} answered too much for connection {self.id!r}: {what}", hint=_HINT)
        return snapshot, passed

    def _restore(self, answer: Connection) -> PassedFile | None:
        """Put the URL that was asked with back into a mechanism that names the same file by its inode."""
        if not answer.HasField("mechanism"):
            return None
        inode = answer.mechanism.parameters.get(FILE, "")
        if not inode.startswith(_INODE):
            return None
        asked = self.files.get(answer.mechanism.type, [])
        if inode in asked:
            return None  # the caller speaks of it so
        same = next((one for one in asked if _inode_of(one) == inode), "")
        if not same and asked and answer.mechanism.type == KERNEL:
            # Of a kernel interface the namespace is the caller's, seen from here or not.
            same = asked[0]
        if same:
            answer.mechanism.parameters[FILE] = same
            return None
        return PassedFile(inode, asked[0] if asked else "")


@dataclass(frozen=True, slots=True)
class PassedFile:
    """A file that the next hop names by the inode of a descriptor which it has sent, and how it is named to that hop.

    A Go peer waits for the descriptor of any inode that it reads, until the call ends; none is sent from here.
    """

    inode: str
    asked: str
    """The URL that was asked with; empty: none."""

    def take_out(self, conn: Connection) -> None:
        """Name the file as it was named when it was asked for."""
        if not conn.HasField("mechanism") or conn.mechanism.parameters.get(FILE, "") != self.inode:
            return
        if self.asked:
            conn.mechanism.parameters[FILE] = self.asked
        else:
            del conn.mechanism.parameters[FILE]


def asked_files(request: Request) -> Mapping[str, list[str]]:
    """The file URLs that a request names, by type of mechanism; those of its preferences first."""
    files: dict[str, list[str]] = {}
    conn = request.connection
    for mechanism in (*request.mechanism_preferences, *([conn.mechanism] if conn.HasField("mechanism") else [])):
        if url := mechanism.parameters.get(FILE, ""):
            files.setdefault(mechanism.type, []).append(url)
    return files


def _inode_of(url: str) -> str:
    """How a Go peer names the file; empty for what is no file here."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "file":
        return ""
    try:
        found = os.stat(urllib.parse.unquote(parts.path))
    except (OSError, ValueError):
        return ""
    return f"{_INODE}{found.st_dev}/{found.st_ino}"
