# SPDX-License-Identifier: Apache-2.0
"""What a token says of its bearer, read without verifying it.

Does:  names the metadata keys that carry tokens, and reads subject, audience and expiry of a JWT. Whether a token is
       genuine is for the security room to say; here it only tells callers apart.
Place: path ids, policies, logs (the subject, never the token).
State: a bounded cache of claims by token.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
from dataclasses import dataclass

TOKEN_KEY = "nsm-client-token"
"""gRPC metadata: the caller's token."""
EXPIRES_KEY = "nsm-client-token-expires"
"""gRPC metadata: when it expires, RFC 3339 with nanoseconds."""

LONGEST = 16_384
"""Characters; a longer token is not looked into."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says; nothing of it is verified."""

    subject: str = ""
    audience: tuple[str, ...] = ()
    expires: float | None = None
    """Seconds since the epoch; None when the token does not say."""


NOTHING = Claims()
"""What anything but a JWT says."""


def claims(token: str) -> Claims:
    """Subject, audience and expiry of a JWT. Total: anything else gives `NOTHING`."""
    # Outside the cache, so that nobody fills it with enormous texts.
    return _claims(token) if len(token) <= LONGEST else NOTHING


@functools.lru_cache(maxsize=1024)
def _claims(token: str) -> Claims:
    parts = token.split(".")
    if len(parts) != 3:
        return NOTHING
    body = parts[1]
    try:
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return NOTHING
    if not isinstance(found, dict):
        return NOTHING
    return Claims(_text(found.get("sub")), _audience(found.get("aud")), _numeric_date(found.get("exp")))


def subject(token: str) -> str:
    """The `sub` claim of a JWT; an empty text for anything that is none."""
    return claims(token).subject


def _text(found: object) -> str:
    # JSON can spell half a character, which nothing that hashes or sends the text could encode.
    return found if isinstance(found, str) and not any("\ud800" <= letter <= "\udfff" for letter in found) else ""


def _audience(found: object) -> tuple[str, ...]:
    if isinstance(found, str):
        return (found,)
    if isinstance(found, list):
        return tuple(one for one in found if isinstance(one, str))
    return ()


def _numeric_date(found: object) -> float | None:
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    try:
        at = float(found)
    except OverflowError:
        return None
    return at if math.isfinite(at) else None
