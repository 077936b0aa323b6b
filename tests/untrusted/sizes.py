# SPDX-License-Identifier: Apache-2.0
"""How long tests of untrusted input may take.

Does:  `EXAMPLES` is how many examples a property gets: few by default, more by `NSM_FUZZ` (a factor).
Place: tests of untrusted input.
State: the environment, read once.
"""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("NSM_FUZZ", "1"))
EXAMPLES = 8 * FACTOR
