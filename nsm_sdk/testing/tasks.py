# SPDX-License-Identifier: Apache-2.0
"""Tasks as text, and the error for what was left behind.

Does:  says of each task its name and where it waits.
Place: messages of the leak check and of virtual time.
State: none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from nsm_sdk.errors import ProgrammingError


class LeakError(ProgrammingError):
    """Something that should be gone is still there; the message names it."""


def lines(tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
    """One text for each task, sorted: its name and the place where it waits."""
    return sorted(f"{task.get_name()!r} at {waits_at(task)}" for task in tasks)


def waits_at(task: asyncio.Task[Any]) -> str:
    """`function (file:line)` of the innermost await of a task."""
    step: Any = task.get_coro()
    place = "its start"
    while step is not None:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None) or getattr(step, "ag_frame", None)
        if frame is not None:
            name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
            place = f"{name} ({frame.f_code.co_filename}:{frame.f_lineno})"
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
    return place
