# SPDX-License-Identifier: Apache-2.0
"""Every table row that this SDK answers otherwise than the Go programs, on purpose, with the reason.

Does:  is the one list that tests of recordings consult; a row that is listed must really differ.
Place: tests/wire and the table tests of each room.
State: none.
"""

from __future__ import annotations

DEVIATIONS: dict[tuple[str, str, str], str] = {
    ("ipam", "ippool", "ippool-7"): (
        "their list names the whole /64 once more when a range ends where a /64 ends (64 bits overflow); pulls agree"
    ),
    ("ipam", "ippool", "ippool-28"): (
        "their list names ::/0 once more at the end of all numbers (64 bits overflow); pulls agree"
    ),
    ("ipam", "prefixpool_exclude", "prefixpool_exclude-2"): (
        "excluding all there is leaves their pool as it was; we refuse, as they do in other such cases"
    ),
    ("ipam", "prefixpool_exclude", "prefixpool_exclude-5"): (
        "a prefix that covers two of the pool's removes only one there; we remove both and refuse: nothing is left"
    ),
    ("ipam", "prefixpool_exclude", "prefixpool_exclude-6"): ("theirs crashes on rubbish; we answer InvalidRequest"),
}
"""(file, section, case) -> why we answer otherwise."""
