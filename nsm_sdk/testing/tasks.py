# SPDX-License-Identifier: Apache-2.0
"""Tasks as text, and the error for what was left behind.

Does:  says of each task its name and where it waits.
Place: messages of the leak check and of virtual time.
State: none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
