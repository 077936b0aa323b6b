# SPDX-License-Identifier: Apache-2.0
"""Constraints for pip that choose the lowest version of each direct dependency.

Does:  prints one line `NAME==VERSION` for each lower bound in pyproject.toml, so that a bound that is not true
       is found by the suite, and no second list of them can drift.
Place: `python tools/lowest.py > FILE`, then `pip install --constraint FILE --editable '.[dev]'`; needs no package.
State: none.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9][0-9A-Za-z.]*)")


def lowest(text: str) -> list[str]:
    """`NAME==VERSION` of each dependency, extras included; ValueError for one without a lower bound."""
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    found = {}
    for one in wanted:
        match = _BOUND.match(one)
        if match is None:
            raise ValueError(f"{one!r} has no lower bound: write {one}>=VERSION")
        found[match[1]] = match[2]
    return [f"{name}=={version}" for name, version in found.items()]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest(PROJECT.read_text())) + "\n")
