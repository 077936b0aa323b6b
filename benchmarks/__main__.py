# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks [NAME ...]`: all benchmarks, or those named, each in a process of its own.

Does:  runs them one after the other, so that none suffers from what another has left in memory, and says at the end
       which rows missed what they should reach.
Place: `make bench`.
State: none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import LOG

NAMES = {
    "elements": "what a chain costs by itself",
    "mesh": "one connection: in process, over sockets, one process per role",
    "load": "idle connections, many callers, memory",
    "transport": "one call over each transport",
    "registry": "look-ups, registrations, watchers",
    "plumbing": "kernel interfaces (needs root)",
    "heal": "healing",
}


def main() -> int:
    """Run; answers the exit status: 0, or 1 if a benchmark failed to run. A missed row is no failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side-by-side measurements.")
    there = [name for name in NAMES if (Path(__file__).parent / f"{name}.py").exists()]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(there)} (default: all)")
    chosen = parser.parse_args().names or there
    for name in chosen:
        if name not in there:
            parser.error(f"there is no benchmark {name!r}: choose from {', '.join(there)}")
    failed = 0
    with tempfile.NamedTemporaryFile("r") as log:
        for name in chosen:
            load = os.getloadavg()[0]
            print(f"\n## {name}: {NAMES[name]} (load {load:.1f} on {os.cpu_count()} cores)\n", flush=True)
            done = subprocess.run(
                [sys.executable, "-m", f"benchmarks.{name}"], env={**os.environ, LOG: log.name}, check=False
            )
            if done.returncode:
                failed += 1
                print(f"{name} failed with status {done.returncode}", flush=True)
        verdicts = [line.rstrip("\n").split("\t") for line in log]
    missed = [what for verdict, what in verdicts if verdict == "missed"]
    print(f"\n{len(verdicts) - len(missed)} of {len(verdicts)} rows reach what they should")
    for what in missed:
        print(f"  missed: {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
