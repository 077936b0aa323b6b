# SPDX-License-Identifier: Apache-2.0
"""Access to the recordings of the Go programs.

Does:  finds the folder (`NSM_FIXTURES`, else `../shared/fixtures` beside the checkout), loads a file once, and turns
       a table's section into pytest parameters.
Place: every test that reads recordings.
State: a cache of parsed files, read only.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(os.environ.get("NSM_FIXTURES") or Path(__file__).resolve().parents[2] / "shared" / "fixtures")

needs_fixtures = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no recordings of the Go programs at {ROOT} (set NSM_FIXTURES to their folder)"
)


@functools.cache
def load(name: str) -> dict[str, Any]:
    """The whole file `name` (without .json); skips the calling test where the folder is absent."""
    path = ROOT / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no recording {path.name} in {ROOT} (set NSM_FIXTURES to their folder)")
    parsed: dict[str, Any] = json.loads(path.read_text())
    return parsed


def rows(name: str, section: str) -> list[Any]:
    """Parameters, one for each row of `cases_<section>`, with the row's name as id; one skip where absent."""
    if not (ROOT / f"{name}.json").is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings at {ROOT} (set NSM_FIXTURES)"))]
    return [pytest.param(row, id=str(row["case"])) for row in load(name)[f"cases_{section}"]]
