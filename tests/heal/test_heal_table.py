# SPDX-License-Identifier: Apache-2.0
"""The table in the documentation is what `decide` does.

Does:  compares, and checks the rules of the table that users rely on.
Place: tools/heal_table.py, docs/explanation/healing.md.
State: none.
"""

from __future__ import annotations

from nsm_sdk.heal import Control, Data
from tools.heal_table import PAGE, rows, updated


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert updated(page) == page, "run python tools/heal_table.py"


def test_every_situation_has_one_row() -> None:
    assert len(rows()) == 3 * 3 * 3 * 3


def test_the_rules_of_the_table() -> None:
    for row in rows():
        if row.external == "succeeds":
            assert row.move in ("nothing", "healing ends")
        elif row.data is Data.DOWN:
            assert row.move == "select anew, at once"
        elif row.data is Data.UP:
            assert "anew" not in row.move
        elif row.control is Control.DOWN and row.refresh == "none":
            assert row.move.startswith("select anew")
