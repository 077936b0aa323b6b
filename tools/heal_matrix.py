# SPDX-License-Identifier: Apache-2.0
"""Write the matrix of faults into docs/explanation/healing.md, from a run on this machine.

Does:  plays every cell on a mesh of programs with real packets; prints each as it comes out; replaces the table between
       the markers of the document when all of them were played. Status 0: every cell came out as it must.
Place: `python tools/heal_matrix.py [TARGET or FAULT ...]`; with names, only those cells, and the document stays.
State: none.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nsm_sdk.lab import PROGRAMS_TCP
from nsm_sdk.lab.scenarios.matrix import FAULTS, MEANING, TARGETS, Cell, play_cell
from nsm_sdk.lab.scenarios.stage import staged

DOCUMENT = Path(__file__).parents[1] / "docs" / "explanation" / "healing.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


async def run(chosen: Sequence[tuple[str, str]]) -> list[Cell]:
    """Play these cells, one after the other, on one mesh."""
    cells = []
    async with staged(PROGRAMS_TCP, name="matrix") as stage:
        for number, (target, fault) in enumerate(chosen):
            began = time.monotonic()
            cell = await play_cell(stage, f"nsc-{number}", target, fault)
            cells.append(cell)
            wrong = f"  WRONG: {'; '.join(cell.wrong)}" if cell.wrong else ""
            detect = "-" if cell.detect is None else f"{cell.detect * 1000:.0f} ms"
            repair = "-" if cell.repair is None else f"{cell.repair * 1000:.0f} ms"
            took = time.monotonic() - began
            print(
                f"{target:22}{fault:9}{cell!s:24}noticed {detect:>8}, repaired {repair:>8} ({took:.1f} s){wrong}",
                flush=True,
            )
    return cells


def table(cells: Sequence[Cell]) -> str:
    """As Markdown."""
    found = {(cell.target, cell.fault): cell for cell in cells}
    lines = [f"| | {' | '.join(FAULTS)} |", f"|---|{'---|' * len(FAULTS)}"]
    for target in TARGETS:
        row = []
        for fault in FAULTS:
            cell = found[target, fault]
            row.append(f"{cell}{' (!)' if cell.wrong else ''}")
        lines.append(f"| {target} | {' | '.join(row)} |")
    return "\n".join(lines)


def write(text: str) -> None:
    """Put the table where it belongs."""
    document = DOCUMENT.read_text()
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    meaning = "\n".join(f"* *{fault}*: {MEANING[fault]}." for fault in FAULTS)
    DOCUMENT.write_text(f"{head}{BEGIN}\n{text}\n\n{meaning}\n{END}{tail}")


def main(arguments: Sequence[str]) -> int:
    """Answers the exit status."""
    unknown = [name for name in arguments if name not in TARGETS + FAULTS]
    if unknown:
        print(f"{', '.join(unknown)}: choose from {', '.join(TARGETS + FAULTS)}", file=sys.stderr)
        return 2
    why_not = PROGRAMS_TCP.why_not()
    if why_not:
        print(f"skipped: the matrix needs real packets: {why_not}")
        return 0
    targets = [name for name in TARGETS if name in arguments] or TARGETS
    faults = [name for name in FAULTS if name in arguments] or FAULTS
    cells = asyncio.run(run([(target, fault) for target in targets for fault in faults]))
    if len(cells) == len(TARGETS) * len(FAULTS):
        write(table(cells))
    return 1 if any(cell.wrong for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
