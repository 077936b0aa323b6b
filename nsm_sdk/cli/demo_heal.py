# SPDX-License-Identifier: Apache-2.0
"""`nsm demo heal`: one connection, five ways to lose it, and what healing makes of each.

Does:  plays the scenarios on a mesh of programs with real packets, with a ping every 10 ms in each direction, and shows
       what each costs: live on a terminal, line by line elsewhere. Status 0: all came out as they must.
Place: a command.
State: what is shown.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.live import Live
from rich.table import Table

from nsm_sdk.cli.demo import FAILED, run
from nsm_sdk.errors import NsmError
from nsm_sdk.lab import PROGRAMS
from nsm_sdk.lab.scenarios import SCENARIOS, Outcome, Scenario, Watched, play, staged

REDRAW = 0.2
"""Seconds between two looks at a live table."""


@dataclass(slots=True)
class Row:
    """One scenario, as it is shown."""

    scenario: Scenario
    state: str = ""
    outcome: Outcome | None = None
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether it came out as it must."""
        return self.outcome is not None and not self.outcome.wrong and not self.error


class Show:
    """The table, and the lines where there is no terminal."""

    def __init__(self, console: Console, scenarios: Sequence[Scenario]) -> None:
        self.console = console
        self.rows = [Row(scenario) for scenario in scenarios]
        self.live = console.is_terminal
        self.client: Watched | None = None
        self.began = time.monotonic()

    def say(self, text: str, row: Row | None = None) -> None:
        """Something has happened."""
        if row is not None:
            row.state = text
        if not self.live:
            name = f"{row.scenario.name}: " if row is not None else ""
            self.console.print(f"{time.monotonic() - self.began:7.2f} s  {name}{text}", soft_wrap=True)

    def ended(self, row: Row) -> None:
        """A scenario is over."""
        if not self.live and row.outcome is not None:
            one = row.outcome
            self.say(
                f"of {one.sent} pings in each direction lost {one.lost[0]} and {one.lost[1]}, noticed after "
                f"{_ms(one.detect)}, repaired in {_ms(one.repair)}, {'moved' if one.moved else 'not moved'}"
                f": {'as it must be' if row.good else 'WRONG: ' + '; '.join(one.wrong)}",
                row,
            )

    def table(self) -> Table:
        """Everything so far."""
        title = "nsm demo heal: one connection, pinged every 10 ms from both ends"
        table = Table(title=title, caption=self._pings())
        for name in (
            "what breaks",
            "what happens",
            "lost there",
            "lost back",
            "noticed in",
            "repaired in",
            "moved",
            "",
        ):
            right = name.startswith(("lost", "noticed", "repaired"))
            table.add_column(name, justify="right" if right else "left")
        for row in self.rows:
            one = row.outcome
            numbers = (
                ("", "", "", "", "")
                if one is None
                else (
                    str(one.lost[0]),
                    str(one.lost[1]),
                    _ms(one.detect),
                    _ms(one.repair),
                    "yes" if one.moved else "no",
                )
            )
            verdict = "[green]ok[/]" if row.good else "[red]wrong[/]" if one is not None or row.error else ""
            table.add_row(row.scenario.what, row.state, *numbers, verdict)
        return table

    def _pings(self) -> str:
        client = self.client
        if client is None:
            return ""
        there, back = client.there, client.back
        return (
            f"{client.hop.name} to {client.endpoint}: {there.answered} of {there.sent} pings answered; "
            f"back: {back.answered} of {back.sent}"
        )


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


async def _redraw(show: Show, live: Live) -> None:
    while True:
        live.update(show.table(), refresh=True)
        await asyncio.sleep(REDRAW)


async def _play(show: Show) -> None:
    show.say("starting a registry, a manager, a forwarder, two endpoints and a client, each a process")
    async with staged() as stage, stage.client("nsc-1") as client:
        show.client = client
        show.say(f"connected to {client.endpoint}")
        for row in show.rows:
            try:
                row.outcome = await play(stage, client, row.scenario, partial(show.say, row=row))
            except NsmError as error:
                row.error = str(error)
                raise
            show.ended(row)
        show.client = None


async def _run(show: Show) -> int:
    async with AsyncExitStack() as stack:
        if show.live:
            live = stack.enter_context(Live(show.table(), console=show.console, auto_refresh=False))
            task = asyncio.create_task(_redraw(show, live), name="redraw")

            async def end() -> None:
                task.cancel()
                await asyncio.wait([task])
                live.update(show.table(), refresh=True)

            stack.push_async_callback(end)
        await _play(show)
    return 0


def play_scenarios(names: Sequence[str] = (), *, plain: bool = False) -> int:
    """Play the scenarios of these names, all if there are none; `plain`: lines instead of a live table.

    Returns the exit status: 1 when something did not come out as it must, or could not be run.
    """
    known = [scenario.name for scenario in SCENARIOS]
    for name in names:
        if name not in known:
            print(f"nsm demo heal: there is no scenario {name!r}: choose from {', '.join(known)}", file=sys.stderr)
            return 2
    why_not = PROGRAMS.why_not()
    if why_not:
        print(f"skipped: nsm demo heal needs real packets: {why_not}")
        return 0
    console = Console(force_terminal=False if plain else None)
    show = Show(console, [scenario for scenario in SCENARIOS if not names or scenario.name in names])
    try:
        if (status := run(_run(show))) != 0:
            return status
    except NsmError as error:
        print(f"nsm demo heal: {error}", file=sys.stderr)
        return FAILED
    good = all(row.good for row in show.rows)
    if not show.live:
        print("healed every time, and at no higher price than it must be" if good else "NOT everything came out right")
    for row in show.rows:
        if show.live and not row.good:
            print(
                f"{row.scenario.name}: {row.error or '; '.join(row.outcome.wrong if row.outcome else ['not played'])}"
            )
    return 0 if good else FAILED
