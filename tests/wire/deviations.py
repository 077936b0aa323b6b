# SPDX-License-Identifier: Apache-2.0
"""Every table row that this SDK answers otherwise than the Go programs, on purpose, with the reason.

Does:  is the one list that tests of recordings consult; a row that is listed must really differ.
Place: tests/wire and the table tests of each room.
State: none.
"""

from __future__ import annotations

DEVIATIONS: dict[tuple[str, str, str], str] = {}
"""(file, section, case) -> why we answer otherwise."""
