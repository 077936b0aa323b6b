# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.chaos [CONNECTIONS [HOURS [SEED]]]`: a day of random trouble in a whole mesh, in virtual time.

Does:  by default 1,000 connections for 24 hours, which takes a core about a quarter of an hour; the tests play a small
       part of it. Prints what broke, what was healed, and what is not as it must be; status 1 where something is not.
Place: by hand, after changes of healing. Not among those of `python -m benchmarks`.
State: none.
"""

from __future__ import annotations

import gc
import logging
import sys
import time

from benchmarks.report import note
from nsm_sdk.lab import Cluster
from nsm_sdk.lab.scenarios.chaos import Chaos
from nsm_sdk.testing import run_virtual

SELDOM = 100_000, 50, 100
"""How seldom garbage is looked for: a thousand journals are a lot to look through, and none of it is garbage."""
WRONG = 5
"""Of what went wrong, how much is printed."""


def main(count: int = 1000, hours: float = 24.0, seed: int = 1) -> int:
    """Run; answers the exit status."""
    logging.getLogger("nsm_sdk").setLevel(logging.CRITICAL)
    gc.set_threshold(*SELDOM)
    wrong: list[str] = []

    async def live() -> None:
        async with Cluster(token_life=3600.0, registration_life=600.0) as cluster:
            report = await Chaos(cluster, seed).live(count, hours)
        faults = ", ".join(f"{number} x {what}" for what, number in sorted(report.faults.items()))
        note(f"{count} connections, {hours:g} h, seed {seed}: healed", report.heals, "times", faults)
        note("moved to another endpoint", report.moves, "times")
        wrong.extend(report.wrong)

    began = time.process_time()
    run_virtual(live, seed=seed)
    note("CPU", time.process_time() - began, "s")
    note("not as it must be", len(wrong), "things")
    for text in wrong[:WRONG]:
        print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(*(kind(text) for kind, text in zip((int, float, int), given, strict=False))))
