# SPDX-License-Identifier: Apache-2.0
"""What a process holds, before and after.

Does:  `Holdings.now()` lists open descriptors, threads, network interfaces and named namespaces; `new_since` says what
       came since. `connected_sockets` looks at any process, so that both ends of a connection can be seen. Each costs
       a fraction of a millisecond.
Place: round every test (see tests/conftest.py); usable in anybody's tests.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from nsm_sdk.errors import ProgrammingError

_LIBRARIES = tuple(str(Path(module.__file__).parent) for module in (asyncio, anyio) if module.__file__)


class LeakError(ProgrammingError):
    """Something that should be gone is still there; the message names it."""


def lines(tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
    """One text for each task, sorted: its name and the place where it waits."""
    return sorted(f"{task.get_name()!r} at {waits_at(task)}" for task in tasks)


def waits_at(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the innermost function, and the innermost that is no library's, if that is another."""
    step: Any = task.get_coro()
    innermost = own = ""
    while step is not None:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None) or getattr(step, "ag_frame", None)
        if frame is not None:
            code = frame.f_code
            innermost = f"{getattr(code, 'co_qualname', code.co_name)} ({code.co_filename}:{frame.f_lineno})"
            if not code.co_filename.startswith(_LIBRARIES):
                own = innermost
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None) or getattr(step, "ag_await", None)
    return innermost if own in ("", innermost) else f"{innermost}, for {own}"


NAMED_NAMESPACES: Final = Path("/run/netns")

LASTING_THREADS: Final = {
    "_poll_wrapper": "grpc.aio keeps one poller for the process once it was used",
    "pytest_timeout": "the watchdog of the test itself",
    "AnyIO worker thread": "an idle worker ends by itself after the loop that used it",
}
"""Threads that may stay, by a part of their name, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What the process has, and what the machine has that a process can make."""

    descriptors: frozenset[tuple[int, str]]
    """(number, what it is)"""
    threads: frozenset[threading.Thread]
    interfaces: frozenset[str]
    """Names in the namespace of the calling thread."""
    namespaces: frozenset[str]
    """Names in /run/netns."""

    @classmethod
    def now(cls) -> Holdings:
        """What there is at the moment."""
        return cls(
            descriptors=frozenset(_descriptors()),
            threads=frozenset(threading.enumerate()),
            interfaces=frozenset(name for _, name in socket.if_nameindex()),
            namespaces=frozenset(_names(NAMED_NAMESPACES)),
        )

    def new_since(self, before: Holdings, *, ours: Iterable[str] = (), patience: float = 1.0) -> list[str]:
        """What came since `before`, as texts; empty when all is gone.

        Interfaces and namespaces count only when their name contains one of `ours`, because other programs make some
        as well; `("",)` counts all. Threads that are ending get `patience` seconds, all together.
        """
        marks = tuple(ours)
        found = [f"descriptor {number}: {what}" for number, what in sorted(self.descriptors - before.descriptors)]
        for thread in self.threads - before.threads:
            if any(part in thread.name for part in LASTING_THREADS) or thread is threading.current_thread():
                continue
            thread.join(patience)
            if thread.is_alive():
                found.append(f"thread {thread.name!r}")
                patience = 0.0
        for label, names in (
            ("interface", self.interfaces - before.interfaces),
            ("namespace", self.namespaces - before.namespaces),
        ):
            found += [f"{label} {name}" for name in sorted(names) if any(mark in name for mark in marks)]
        return found


def _descriptors(pid: int | str = "self") -> Iterable[tuple[int, str]]:
    for name in _names(Path(f"/proc/{pid}/fd")):
        # Standard input and output are swapped round by whoever captures output.
        if int(name) <= 2 and pid == "self":
            continue
        try:
            yield int(name), os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            # It was the listing's own, or closed meanwhile by another thread.
            continue


def connected_sockets(pid: int | str = "self") -> frozenset[str]:
    """The stream sockets of a process that are connected, or were: not those that listen. Empty for one that has ended.

    As names of inodes, `socket:[123]`, which no two sockets of one machine share at a time.
    """
    connected = set()
    for table, state, wanted, inode in _TABLES:
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[state] in wanted:
                connected.add(f"socket:[{fields[inode]}]")
    return frozenset(what for _, what in _descriptors(pid) if what in connected)


_TABLES: Final = (
    ("unix", 5, ("03",), 6),
    ("tcp", 3, ("01", "04", "05", "08", "09", "0B"), 9),
    ("tcp6", 3, ("01", "04", "05", "08", "09", "0B"), 9),
)
"""Tables of /proc/PID/net: the columns of state and inode, and the states between connecting and closed."""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
