# SPDX-License-Identifier: Apache-2.0
"""Writes the decision table of healing into docs/explanation/healing.md.

Does:  asks `decide` itself, for every control plane x datapath x refresh outcome x external request, what it does
       first. `--check` says whether the page is up to date and changes nothing.
Place: run by hand after a change of `decide`; a test runs the check.
State: none.
"""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from nsm_sdk.heal.decide import decide
from nsm_sdk.heal.model import By, Control, Data, Healing, Phase, Said
from nsm_sdk.heal.steps import Action, Attempt, Check, Checked, Due, Established, Event, Failed, Heard, Kind, Note

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "healing.md"
BEGIN, END = "<!-- decision table: begin -->", "<!-- decision table: end -->"
REFRESH_IN, LIFE, TIMEOUT = 120.0, 600.0, 15.0
OUTCOMES = ("none", "succeeds", "fails")
_SAID = {Control.UP: Said.UP, Control.DOWN: Said.DOWN, Control.UNKNOWN: Said.LOST}
_ALIVE = {Data.UP: True, Data.DOWN: False}


@dataclass(frozen=True, slots=True)
class Row:
    """What is decided in one situation."""

    control: Control
    data: Data
    refresh: str
    external: str
    move: str


class _Shell:
    """Runs decisions in a situation that does not change, until the first request or until nothing is to be done."""

    def __init__(self, data: Data) -> None:
        self.now = 0.0
        self.data = data
        self.state = Healing(random=1)
        self.attempt: Attempt | None = None
        self.at = 0.0
        self.waited: set[str] = set()
        self.checked = False

    def feed(self, event: Event) -> None:
        self.state, actions = decide(self.state, event, self.now)
        for action in actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        match action:
            case Attempt():
                if self.attempt is None:
                    self.attempt, self.at = action, self.now
            case Check():
                self.checked = True
                self.feed(Checked(alive=_ALIVE.get(self.data), asked=True))
            case Note():
                if action.kind is Kind.WAIT:
                    self.waited.add(action.text)
            case _:
                pass

    def run(self) -> None:
        """Until the first attempt."""
        while self.attempt is None and self.state.due < math.inf and self.state.phase is not Phase.CLOSED:
            self.now = self.state.due
            self.feed(Due())


def situation(control: Control, data: Data, refresh: str, external: str) -> Row:
    """Something is so, and has been noticed in this order: datapath, control plane, refresh, application."""
    shell = _Shell(data)
    established = Established(
        by=By.EXTERNAL,
        endpoint="nse",
        expires=LIFE,
        timeout=TIMEOUT,
        refresh_in=REFRESH_IN,
        probed=data is not Data.UNCHECKED,
    )
    shell.feed(established)
    shell.feed(Heard(said=Said.UP))
    if data is not Data.UNCHECKED:
        shell.feed(Checked(alive=True))
    shell.now = 10.0
    began = shell.now
    # A request that succeeds is news of its own; it comes last, as in life.
    if data is Data.DOWN:
        shell.feed(Checked(alive=False, what="no answer"))
    if control is not Control.UP:
        shell.feed(Heard(said=_SAID[control]))
    if refresh != "none":
        same = Established(
            by=By.REFRESH, endpoint="nse", expires=LIFE, refresh_in=REFRESH_IN, probed=established.probed
        )
        shell.feed(same if refresh == "succeeds" else Failed(by=By.REFRESH, what="failed"))
    if external != "none":
        again = Established(
            by=By.EXTERNAL, endpoint="nse", expires=LIFE, refresh_in=REFRESH_IN, probed=established.probed
        )
        shell.feed(again if external == "succeeds" else Failed(by=By.EXTERNAL, what="failed"))
    if not shell.state.healing:
        ended = "succeeds" in (refresh, external) and (control is not Control.UP or data is Data.DOWN)
        return Row(control, data, refresh, external, "healing ends" if ended else "nothing")
    shell.run()
    return Row(control, data, refresh, external, _words(shell, began))


def _words(shell: _Shell, began: float) -> str:
    assert shell.attempt is not None
    what = "select anew" if shell.attempt.reselect else "same endpoint"
    wait = shell.at - began
    if wait <= 0:
        return f"{what}, at once"
    if wait <= shell.state.policy.first_pause:
        return f"{what}, after a pause"
    return f"{what}, spread over 10 s" if wait > 2 else f"{what}, spread over 2 s"


def rows() -> list[Row]:
    """Every situation."""
    return [
        situation(control, data, refresh, external)
        for control, data, refresh, external in itertools.product(Control, Data, OUTCOMES, OUTCOMES)
    ]


def table() -> str:
    """Markdown: one line for each control plane x datapath x refresh, one column for each external request."""
    found = {(row.control, row.data, row.refresh, row.external): row.move for row in rows()}
    lines = [
        "| control plane | datapath | a refresh | no other request | another succeeds | another fails |",
        "|---|---|---|---|---|---|",
    ]
    for control, data, refresh in itertools.product(Control, Data, OUTCOMES):
        moves = [found[control, data, refresh, external] for external in OUTCOMES]
        lines.append(f"| {control} | {data} | {refresh} | " + " | ".join(moves) + " |")
    return "\n".join(lines)


def updated(page: str) -> str:
    """The page with the present table."""
    head, found, rest = page.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"{PAGE}: no place for the table; it goes between {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def main() -> int:
    """Write, or with `--check` compare."""
    page = PAGE.read_text()
    new = updated(page)
    if "--check" in sys.argv[1:]:
        if new != page:
            print(f"{PAGE} is out of date: run python tools/heal_table.py")
            return 1
        return 0
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
