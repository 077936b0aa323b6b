# SPDX-License-Identifier: Apache-2.0
"""Names of endpoints.

Does:  makes a name that nobody else has: registries do not, the last one to register a name wins.
Place: whoever registers an endpoint and has no name for it.
State: none.
"""

from __future__ import annotations

import uuid


def unique_name(prefix: str) -> str:
    """`prefix` and a random UUID, joined by a dash."""
    return f"{prefix}-{uuid.uuid4()}"
