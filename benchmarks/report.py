# SPDX-License-Identifier: Apache-2.0
"""The table: one line for each row, with what it should reach.

Does:  prints rows of equal width as they are measured, with `ok` or `missed`; `note` prints what stands beside.
Place: used by every benchmark.
State: a file that `python -m benchmarks` names in the environment collects the verdicts.
"""

from __future__ import annotations

import os

LOG = "NSM_BENCHMARK_LOG"
WIDTH = 66


def row(what: str, figure: float, reach: float, unit: str = "x", *, detail: str = "", most: bool = True) -> bool:
    """Print a row: what was measured against `reach`, which is the most it may be, or (`most=False`) the least."""
    good = figure <= reach if most else figure >= reach
    verdict = "ok" if good else "missed"
    bound = f"{'<=' if most else '>='} {_number(reach)} {unit}"
    print(f"{what:{WIDTH}}{_number(figure):>9} {unit:<7}{bound:<16}{verdict:<7} {detail}".rstrip(), flush=True)
    if (path := os.environ.get(LOG)) is not None:
        with open(path, "a") as log:
            log.write(f"{verdict}\t{what}: {_number(figure)} {unit}, {bound}\n")
    return good


def note(what: str, figure: float, unit: str, detail: str = "") -> None:
    """Print a figure that has nothing to reach."""
    print(f"{what:{WIDTH}}{_number(figure):>9} {unit:<7}{'':23} {detail}".rstrip(), flush=True)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
