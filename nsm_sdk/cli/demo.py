# SPDX-License-Identifier: Apache-2.0
"""`nsm demo`: a whole mesh on this machine, and one connection through it, step by step.

Does:  plays a story and shows each step as it happens: live on a terminal, line by line elsewhere. Without root or
       network namespaces it says so and plays it with the simulated datapath. The exit status is 0 only if everything
       held.
Place: behind `nsm_sdk.cli.app`.
State: none.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from nsm_sdk.errors import NsmError
from nsm_sdk.lab.mode import NAMESPACES, PROGRAMS, PROGRAMS_SIMULATED, UNIX, Mode
from nsm_sdk.lab.scenarios.first import Step, first_connection, why_simulated

FAILED = 1
INTERRUPTED = 130


def play(*, simulated: bool = False, programs: bool = False) -> int:
    """Play the story of a first connection; returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    # What hops have to say of a peer that ends is no news here.
    logger = logging.getLogger("nsm_sdk")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return run(_play(console, simulated=simulated, programs=programs))
    finally:
        # The caller may be more than a command line.
        logger.setLevel(level)


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run a story. SIGTERM and SIGHUP end it as Ctrl-C does: everything is cleaned up.

    Further signals change nothing: some senders (`timeout`) send one twice, and half a clean-up is none.
    """

    async def guarded() -> int:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, leave)
        return await work

    try:
        return asyncio.run(guarded())
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; everything has been cleaned up", file=sys.stderr)
        return INTERRUPTED


async def _play(console: Console, *, simulated: bool, programs: bool) -> int:
    reason = "it was asked for" if simulated else await why_simulated()
    console.print(Text("One connection through a mesh on this machine", style="bold"))
    if reason:
        console.print(
            f"No real packets, because {reason}: the same scenario runs in one process with the simulated datapath."
        )
    mode = _mode(programs, bool(reason))
    screen = Screen(console)
    try:
        with screen:
            steps = await first_connection(mode, screen.tell)
    except NsmError as error:
        console.print(Text(f"failed: {error}", style="red"))
        return FAILED
    total = sum(step.seconds or 0.0 for step in steps)
    console.print(Text(f"All of it held, in {total:.2f} s. Nothing is left.", style="green"))
    return 0


def _mode(programs: bool, simulated: bool) -> Mode:
    if programs:
        return PROGRAMS_SIMULATED if simulated else PROGRAMS
    return UNIX if simulated else NAMESPACES


class Screen:
    """Shows steps as they end; on a terminal also the one that is going on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            # Only the step that is going on is live: a whole story is taller than many a terminal.
            self._live = Live(console=self._console, refresh_per_second=12, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, step: Step) -> None:
        """A step has begun, or has ended."""
        if step.ended:
            if self._live is not None:
                self._live.update(Text(""), refresh=True)
            self._console.print(_shown(step))
        elif self._live is not None:
            self._live.update(
                Spinner("dots", text=Text(f"            {step.title}", style="bold"), style="cyan"), refresh=True
            )


def _shown(step: Step) -> Text:
    mark, style = ("FAILED", "bold red") if step.failed else ("ok", "green")
    text = Text.assemble((f"{mark:<6} ", style), (f"{_time(step):>9}  ", "dim"), (step.title, "bold"))
    for detail in step.details:
        text.append(f"\n{'':18}{detail}", "cyan")
    if step.failed:
        text.append(f"\n{'':18}{step.failed}", "red")
    return text


def _time(step: Step) -> str:
    return "" if step.seconds is None else f"{step.seconds * 1e3:.1f} ms"
