# SPDX-License-Identifier: Apache-2.0
"""The forwarder's memory on disk: which connection has which links in which namespaces.

Does:  one small JSON file for each connection, written before anything is made, replaced atomically, mode 0600. A file
       that cannot be read as a record, or that somebody else has put there, is left alone and reported once: what a
       record says is deleted one day.
Place: KernelDatapath, on the netlink thread.
State: the folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.mechanisms.clients import Client
from nsm_sdk.mechanisms.tags import file_name

logger = logging.getLogger("nsm_sdk.mechanisms")
_VERSION = 1
_NEWS = 0.3
"""Share of a token's life by which it must have grown to be written again; a client refreshes after a third of it."""
_LARGEST = 1 << 17
"""Bytes of a record; ours have about a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEnd:
    """Where an end is: namespace (URL as given, device, inode), the link's name, MAC and alias, and its addresses."""

    role: str
    url: str
    dev: int
    ino: int
    name: str
    mac: str
    alias: str
    tables: tuple[int, int] = (0, 0)
    addresses: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """The identity of the namespace."""
        return self.dev, self.ino


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that is remembered of one connection. `until`: wall time until which its client has refreshed it."""

    connection: str
    forwarder: str
    ends: tuple[RecordedEnd, ...]
    client: Client | None = None
    until: float = 0.0

    def end(self, role: str) -> RecordedEnd | None:
        """The end of that role."""
        return next((end for end in self.ends if end.role == role), None)

    def worth_writing(self, written: Record, now: float) -> bool:
        """Whether it tells more than what was written before: a token that lasts a little longer is no news."""
        share = (self.until - now) * _NEWS
        return replace(self, until=written.until) != written or abs(self.until - written.until) > share

    def same_place(self, other: Record) -> bool:
        """Whether both mean the same two links, whatever these and their namespaces are called now."""
        return self._places() == other._places()

    def _places(self) -> list[tuple[str, int, int, str]]:
        return [(end.role, end.dev, end.ino, end.alias) for end in self.ends]

    def with_tables_of(self, earlier: Record) -> Record:
        """Remembers the tables of `earlier` too: the rules in them may be there still."""
        pairs = zip(self.ends, earlier.ends, strict=True)
        ends = (new if new.tables[1] else replace(new, tables=old.tables) for new, old in pairs)
        return replace(self, ends=tuple(ends))


class Ledger:
    """Records in `folder` (made with mode 0700); None: in memory only."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._records: dict[str, Record] = {}
        self._clients: dict[Client, dict[str, None]] = {}
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for path in folder.glob("*.tmp"):
                    path.unlink(missing_ok=True)
                if folder.stat().st_mode & 0o022:
                    logger.warning("state folder %s can be written by others: make it mode 0700", folder)
                for record in self._load(folder):
                    self._keep(record)
            except OSError as error:
                raise FailedPrecondition(
                    f"state folder {folder} cannot be used: {error.strerror}",
                    hint="set NSM_STATE_DIR to a folder that this program may write",
                ) from error

    def get(self, connection: str) -> Record | None:
        """What is remembered of a connection, or None."""
        return self._records.get(connection)

    def all(self) -> list[Record]:
        """Everything that is remembered."""
        return list(self._records.values())

    def of(self, client: Client) -> list[Record]:
        """What is remembered of a client's connections."""
        # Also asked for beside the netlink thread, which may be about to drop one.
        found = map(self._records.get, list(self._clients.get(client, ())))
        return [record for record in found if record is not None]

    def put(self, record: Record, *, now: float = 0.0) -> None:
        """Remembers `record`; nothing is written when what is written says as much at the wall time `now`."""
        before = self._records.get(record.connection)
        if before is not None and not record.worth_writing(before, now):
            return
        if self.folder is not None:
            path = f"{self.folder}/{file_name(record.connection)}"
            # A name that nobody can have prepared, for example as a link to elsewhere.
            draft = f"{path}.{secrets.token_hex(4)}.tmp"
            try:
                _write(draft, json.dumps(_plain(record)).encode())
                os.replace(draft, path)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(draft)
                raise _told(path, "written", error) from error
        self._keep(record)

    def _keep(self, record: Record) -> None:
        # In one step: others look beside the netlink thread, and what is replaced was never away.
        before = self._records.get(record.connection)
        self._records[record.connection] = record
        if record.client is not None:
            self._clients.setdefault(record.client, {})[record.connection] = None
        if before is not None and before.client != record.client:
            self._unlist(before)

    def _drop(self, connection: str) -> None:
        before = self._records.pop(connection, None)
        if before is not None:
            self._unlist(before)

    def _unlist(self, record: Record) -> None:
        if record.client is not None:
            left = self._clients[record.client]
            left.pop(record.connection, None)
            if not left:
                del self._clients[record.client]

    def forget(self, connection: str) -> None:
        """Drops the record; FailedPrecondition where its file cannot be removed, then it stays."""
        if connection in self._records and self.folder is not None:
            path = self.folder / file_name(connection)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _told(str(path), "removed", error) from error
        self._drop(connection)

    def _load(self, folder: Path) -> Iterator[Record]:
        for path in sorted(folder.glob("*.json")):
            try:
                yield _parse(json.loads(_read(path)))
            except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
                logger.warning("state file %s is not a record and is left alone: %s", path, error)


def _told(path: str, what: str, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"state file {path} cannot be {what}: {error.strerror}",
        hint="see that the folder NSM_STATE_DIR exists, is writable and has space",
    )


def _write(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # A file system that is nearly full takes a part and says so only by the number.
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)


def _read(path: Path) -> bytes:
    """What is in the file. ValueError for what is no file of ours: a link, a pipe, somebody else's."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise ValueError("it is not a file of this program's user")
        if found.st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        return os.read(handle, _LARGEST)
    finally:
        os.close(handle)


def _plain(record: Record) -> dict[str, Any]:
    # asdict copies deeply, and takes longer than writing the file
    ends = [{field: getattr(end, field) for field in RecordedEnd.__slots__} for end in record.ends]
    plain: dict[str, Any] = {"version": _VERSION, "connection": record.connection, "forwarder": record.forwarder}
    if record.client is not None:
        plain["client"] = [record.client.name, record.client.id, record.client.subject, record.client.index]
    return {**plain, "until": record.until, "ends": ends}


def _parse(raw: Any) -> Record:
    if not isinstance(raw, dict) or raw.get("version") != _VERSION:
        raise ValueError(f"not a record of version {_VERSION}")
    ends = []
    for end in raw["ends"]:
        low, high = end["tables"]
        strings = {key: str(end[key]) for key in ("role", "url", "name", "mac", "alias")}
        addresses = tuple(map(str, end.get("addresses", ())))
        tables = (int(low), int(high))
        ends.append(
            RecordedEnd(dev=int(end["dev"]), ino=int(end["ino"]), tables=tables, addresses=addresses, **strings)
        )
    client = None
    if raw.get("client") is not None:
        name, first, subject, index = raw["client"]
        client = Client(str(name), str(first), str(subject), int(index))
    return Record(
        connection=str(raw["connection"]),
        forwarder=str(raw["forwarder"]),
        ends=tuple(ends),
        client=client,
        until=float(raw.get("until", 0.0)),
    )
