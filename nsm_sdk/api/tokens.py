# SPDX-License-Identifier: Apache-2.0
"""What a token says of its bearer, read without verifying it.

Does:  names the metadata keys that carry tokens, and reads the subject of a JWT. Whether a token is genuine is for the
       security room to say; here it only tells callers apart.
Place: path ids, policies, logs (the subject, never the token).
State: a bounded cache of subjects by token.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json

TOKEN_KEY = "nsm-client-token"
"""gRPC metadata: the caller's token."""
EXPIRES_KEY = "nsm-client-token-expires"
"""gRPC metadata: when it expires, RFC 3339 with nanoseconds."""

_LONGEST = 16_384
"""Characters; a longer token is not looked into."""


@functools.lru_cache(maxsize=1024)
def subject(token: str) -> str:
    """The `sub` claim of a JWT; an empty text for anything that is none."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST:
        return ""
    body = parts[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return ""
    found = claims.get("sub") if isinstance(claims, dict) else None
    # JSON can spell half a character, which nothing that hashes or sends the subject could encode
    return found if isinstance(found, str) and not any("\ud800" <= letter <= "\udfff" for letter in found) else ""
