# SPDX-License-Identifier: Apache-2.0
"""Names that belong to this run of the tests.

Does:  makes names of namespaces, interfaces and sockets that no other run uses, and by which the leak check knows ours.
Place: tests that make something in the kernel or in a shared folder.
State: a mark of four characters, and a counter.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Final

MARK: Final = secrets.token_hex(2)
_count = itertools.count(1)


def unique(prefix: str = "t") -> str:
    """`<prefix><mark><number>`; short enough for an interface while the prefix has at most seven characters."""
    return f"{prefix}{MARK}{next(_count)}"
