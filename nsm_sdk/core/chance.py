# SPDX-License-Identifier: Apache-2.0
"""Where chance comes from.

Does:  one source for everything that is spread out at random: pauses, jitter, starting points. Virtual time brings its
       own, seeded, so that a run can be repeated. Never for secrets, nor for ids that others must not guess.
Place: `Runtime.dice`; `dice` itself where there is no role yet.
State: none.
"""

from __future__ import annotations

import asyncio
import random


def dice() -> random.Random:
    """Those of the running event loop if it has any, else new ones that nobody can repeat."""
    try:
        found = getattr(asyncio.get_running_loop(), "dice", None)
    except RuntimeError:
        found = None
    return found if isinstance(found, random.Random) else random.Random()
