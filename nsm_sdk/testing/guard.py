# SPDX-License-Identifier: Apache-2.0
"""What virtual time refuses: threads, sockets, name look-ups and subprocesses.

Does:  `guard_this_thread` makes them fail where they are made, in the thread of a virtual loop while it runs; other
       threads are left alone.
Place: under the virtual loop.
State: which threads are guarded; an audit hook, for good once it is in.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any

from nsm_sdk.errors import ProgrammingError

_REFUSED: Mapping[str, str] = {
    "socket.__new__": "a socket",
    "socket.getaddrinfo": "a name look-up",
    "subprocess.Popen": "a subprocess",
    "os.fork": "a subprocess",
    "os.posix_spawn": "a subprocess",
}


class VirtualTimeError(ProgrammingError):
    """Something that virtual time cannot do, or a run that cannot go on."""


def refusal(what: str) -> VirtualTimeError:
    """The error that says why there is no `what` here."""
    return VirtualTimeError(
        f"{what} under virtual time: time would run away while the loop waits for it",
        hint="use inproc:// addresses and simulated parts, or run this test in real time",
    )


_guarded: dict[int, int] = {}
_lock = threading.Lock()
_hooked = False
_start = threading.Thread.start


def guard_this_thread(step: int) -> None:
    """Refuse threads and what `_REFUSED` lists in this thread, while its count is above 0."""
    global _hooked, _start
    me = threading.get_ident()
    with _lock:
        if not _hooked:
            # For good, because a hook cannot be taken away; it costs a look into an empty dictionary.
            sys.addaudithook(_audit)
            _hooked = True
        if not _guarded:
            _start = threading.Thread.start
        count = _guarded.pop(me, 0) + step
        if count:
            _guarded[me] = count
        # Threads have no audit event before Python 3.12.
        threading.Thread.start = _guarded_start if _guarded else _start  # type: ignore[method-assign, assignment]


def _guarded_start(thread: threading.Thread) -> None:
    if threading.get_ident() in _guarded:
        raise refusal(f"a thread ({thread.name})")
    _start(thread)


def _audit(event: str, _: Any) -> None:
    if _guarded and event in _REFUSED and threading.get_ident() in _guarded:
        raise refusal(_REFUSED[event])
