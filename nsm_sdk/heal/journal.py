# SPDX-License-Identifier: Apache-2.0
"""The story of each connection: what was seen, what was decided, why, and what it cost.

Does:  `Journal` keeps the last entries of one connection and says how many it has dropped; `story` tells them to a
       human; `Journals` keeps those of open connections and of some that were closed. Observers get every entry.
Place: written by `Heal`; read by the admin socket (`journal ID`), `nsm explain`, and tests.
State: bounded; nothing here refers to a connection's messages.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from nsm_sdk.heal.steps import Kind, Note

ENTRIES = 128
"""Entries kept for a connection."""
CLOSED_KEPT = 256
"""Journals of closed connections that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened to a connection."""

    at: float
    """Seconds, monotonic: for differences."""
    wall: float
    """Seconds since the epoch."""
    kind: str
    """One of `Kind`."""
    text: str
    why: str = ""
    moved: bool | None = None
    detect: float | None = None
    """Seconds from the last sign that the datapath was up to the first that it was not; at most so long was it dead."""
    repair: float | None = None
    """Seconds from the first sign of trouble to the success."""
    attempts: int | None = None
    times: int | None = None
    """How many refreshes in a row this is the last of; None for one."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what says nothing is left out."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value not in (None, "")}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Entry:
        """The entry that `as_dict` has written; unknown fields are ignored."""
        return cls(**{name: value for name, value in fields.items() if name in cls.__slots__})


EntryObserver: TypeAlias = Callable[["Journal", Entry], None]
"""Told of every entry; must not block or raise."""


class Journal:
    """The last entries of one connection."""

    def __init__(self, id: str, service: str = "", *, entries: int = ENTRIES) -> None:
        self.id = id
        self.service = service
        self.dropped = 0
        """How many entries had to go."""
        self.heals = 0
        """How often the connection has been healed."""
        self.moves = 0
        """How often that changed its endpoint."""
        self._entries: deque[Entry] = deque(maxlen=entries)

    def add(self, entry: Entry) -> None:
        """Note it; the oldest goes when there are too many. Of refreshes in a row the last stays, with their number."""
        last = self._entries[-1] if self._entries else None
        if last is not None and entry.kind == last.kind == Kind.REFRESHED and not entry.moved and not last.moved:
            self._entries[-1] = replace(entry, times=(last.times or 1) + 1)
            return
        if len(self._entries) == self._entries.maxlen:
            self.dropped += 1
        self._entries.append(entry)
        if entry.kind == Kind.HEALED:
            self.heals += 1
            self.moves += bool(entry.moved)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries)

    def of(self, *kinds: Kind) -> list[Entry]:
        """Those of the kinds, oldest first."""
        return [entry for entry in self._entries if entry.kind in kinds]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.id,
            "service": self.service,
            "dropped": self.dropped,
            "heals": self.heals,
            "moves": self.moves,
            "entries": [entry.as_dict() for entry in self._entries],
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Journal:
        """The journal that `as_dict` has written."""
        entries = [Entry.from_dict(entry) for entry in fields.get("entries", ())]
        journal = cls(fields.get("id", ""), fields.get("service", ""), entries=max(len(entries), ENTRIES))
        journal._entries.extend(entries)
        journal.dropped = fields.get("dropped", 0)
        journal.heals, journal.moves = fields.get("heals", 0), fields.get("moves", 0)
        return journal

    def __len__(self) -> int:
        return len(self._entries)


def story(journal: Journal) -> str:
    """What has happened, a line for each entry, times since the first line."""
    head = f"connection {journal.id}" + (f" to {journal.service}" if journal.service else "")
    lines = [f"{head}: healed {journal.heals} times, moved {journal.moves} times"]
    if journal.dropped:
        lines.append(f"  ({journal.dropped} older entries were dropped)")
    entries = journal.entries
    if not entries:
        return "\n".join([*lines, "  nothing has happened yet"])
    start = entries[0]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(start.wall))
    lines.append(f"  since {when} UTC:")
    lines += [f"  {entry.at - start.at:+10.3f} s  {entry.kind:<9}  {_sentence(entry)}" for entry in entries]
    return "\n".join(lines)


def _sentence(entry: Entry) -> str:
    facts = []
    if entry.kind == Kind.HEALED:
        facts.append("moved to another endpoint" if entry.moved else "not moved")
    if entry.detect is not None:
        facts.append(f"last known to be up {_duration(entry.detect)} before")
    if entry.repair is not None:
        facts.append(f"repaired in {_duration(entry.repair)}")
    if entry.times is not None:
        facts.append(f"{entry.times} times in a row")
    if entry.attempts is not None and entry.kind != Kind.ATTEMPT:
        facts.append(f"{entry.attempts} attempt" + ("" if entry.attempts == 1 else "s"))
    return entry.text + (f" ({', '.join(facts)})" if facts else "")


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


class Journals:
    """The journals of a client's connections."""

    def __init__(
        self, observers: Iterable[EntryObserver] = (), *, entries: int = ENTRIES, closed: int = CLOSED_KEPT
    ) -> None:
        self.observers = list(observers)
        self._entries = entries
        self._closed_kept = closed
        self._open: dict[str, Journal] = {}
        self._closed: OrderedDict[str, Journal] = OrderedDict()

    def open(self, id: str, service: str = "") -> Journal:
        """The journal of a connection that is open, or opens again."""
        journal = self._open.get(id) or self._closed.pop(id, None)
        if journal is None:
            journal = Journal(id, service, entries=self._entries)
        self._open[id] = journal
        return journal

    def close(self, id: str) -> None:
        """The connection is closed; its journal is kept for a while."""
        journal = self._open.pop(id, None)
        if journal is not None:
            self._closed[id] = journal
            if len(self._closed) > self._closed_kept:
                self._closed.popitem(last=False)

    def get(self, id: str) -> Journal | None:
        """The journal of a connection, open or closed not long ago."""
        return self._open.get(id) or self._closed.get(id)

    def note(self, journal: Journal, note: Note, at: float, wall: float) -> Entry:
        """Write `note` down, and tell the observers."""
        entry = Entry(
            at=at,
            wall=wall,
            kind=note.kind.value,
            text=note.text,
            why="" if note.why is None else note.why.value,
            moved=note.moved,
            detect=note.detect,
            repair=note.repair,
            attempts=note.attempts,
        )
        journal.add(entry)
        for observer in self.observers:
            observer(journal, entry)
        return entry

    def __iter__(self) -> Iterator[Journal]:
        return iter([*self._open.values(), *self._closed.values()])

    def __len__(self) -> int:
        return len(self._open) + len(self._closed)
