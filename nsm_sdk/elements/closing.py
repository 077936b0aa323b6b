# SPDX-License-Identifier: Apache-2.0
"""Closing to the end, whatever fails on the way.

Does:  closes through a chain; when an element fails, runs every element's close alone, so that none keeps another from
       its turn, and gathers what still fails.
Place: used by `Begin` alone.
State: none.
"""

from __future__ import annotations

import logging

from nsm_sdk.api import Snapshot, describe
from nsm_sdk.core import Call, Next

logger = logging.getLogger("nsm_sdk.elements")


async def close_below(next: Next, call: Call, stored: Snapshot) -> list[Exception]:
    """Close through the chain; after a failure run each element's close alone, so that none blocks another."""
    try:
        await next.close(call, stored.connection())
    except Exception as error:
        logger.info("%s: close of %s: %s", call.runtime.name, describe(stored.connection()), error)
    else:
        return []
    errors: list[Exception] = []
    for closer in next.closers:
        try:
            await closer(call, stored.connection())
        except Exception as error:
            errors.append(call.runtime.explain(error))
    return errors


def raise_first(errors: list[Exception]) -> None:
    """Raise the first, with the others as notes; nothing where there are none."""
    if not errors:
        return
    first, *others = errors
    for other in others:
        first.add_note(f"also: {other}")
    raise first
