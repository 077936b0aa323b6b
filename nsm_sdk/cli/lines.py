# SPDX-License-Identifier: Apache-2.0
"""Lines for whoever reads our output, without ever waiting for them.

Does:  a bounded queue and a thread that writes; when the reader is slow, lines are dropped and a later line says how
       many; when nobody reads any more (the pipe is closed), everything is dropped and the program goes on.
Place: one for stdout (events), one for stderr (logs).
State: the queue, the count of what was lost.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

CAPACITY = 4096
"""Lines that may wait."""
LARGEST = 4 << 20
"""Bytes that may wait."""


class Lines:
    """Writes lines to the descriptor `fd`. `dropped` makes the line that tells of lost ones."""

    def __init__(self, fd: int, dropped: Callable[[int], str], *, capacity: int = CAPACITY) -> None:
        self._fd = fd
        self._dropped = dropped
        self._capacity = capacity
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._broken = False
        self._busy = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"lines {fd}", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue one line; never waits, never raises."""
        raw = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._broken:
                return
            if self._lost or len(self._queue) >= self._capacity or self._bytes + len(raw) > LARGEST:
                self._lost += 1
            else:
                self._queue.append(raw)
                self._bytes += len(raw)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, for `seconds` at most; whether it was."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._broken or not (self._queue or self._lost or self._busy), seconds
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._lost)
                if self._queue:
                    raw = self._queue.popleft()
                    self._bytes -= len(raw)
                else:
                    # Only now that what came before is written: the line stands where the gap is.
                    raw = self._dropped(self._lost).encode() + b"\n"
                    self._lost = 0
                self._busy = True
            try:
                self._write(raw)
            except OSError:
                with self._changed:
                    self._broken = True
                    self._queue.clear()
                    self._lost = 0
                    self._busy = False
                    self._changed.notify_all()
                return

    def _write(self, raw: bytes) -> None:
        while raw:
            try:
                raw = raw[os.write(self._fd, raw) :]
            except BlockingIOError:
                # Whoever shares the pipe with us has made it non-blocking.
                select.select([], [self._fd], [])
