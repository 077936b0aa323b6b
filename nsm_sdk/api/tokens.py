# SPDX-License-Identifier: Apache-2.0
"""What a token says of its bearer, read without verifying it, and when it expires.

Whether a token is genuine is for the security room to say; here it only tells callers apart. Texts of times are RFC
3339 with nanoseconds, the form of a token's expiry in gRPC metadata. What was read is kept in bounded caches: a
token comes again and again while it is handed out.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nsm_sdk.api._gen.wellknown import Timestamp
from nsm_sdk.api.path import timestamp
from nsm_sdk.errors import InvalidRequest

TOKEN_KEY = "nsm-client-token"
"""gRPC metadata: the caller's token."""
EXPIRES_KEY = "nsm-client-token-expires"
"""gRPC metadata: when it expires, RFC 3339 with nanoseconds."""

MAX_TOKEN_CHARS = 16_384
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
    return _claims(token) if len(token) <= MAX_TOKEN_CHARS else NOTHING


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


_FORM = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,32}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIME_CHARS = 64
"""Characters; what the form allows is shorter."""


def format_time(at: Timestamp | float) -> str:
    """The text for a time: a message (nanoseconds are kept) or seconds since the epoch (microseconds are kept)."""
    ts = timestamp(at) if isinstance(at, (int, float)) else timestamp(at.seconds)
    nanos = ts.nanos if isinstance(at, (int, float)) else min(max(at.nanos, 0), 999_999_999)
    whole = _EPOCH + timedelta(seconds=ts.seconds)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    # `isoformat` pads the year, which `strftime` does not on every platform.
    return f"{whole.replace(tzinfo=None).isoformat()}{fraction}Z"


def parse_time(text: str) -> Timestamp:
    """The time of a text, exact to the nanosecond. InvalidRequest unless it is one of the years 1 to 9999."""
    if len(text) > _MAX_TIME_CHARS:
        raise _refusal(text)
    seconds, nanos = _parse(text)
    return Timestamp(seconds=seconds, nanos=nanos)


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> tuple[int, int]:
    found = _FORM.fullmatch(text)
    if found is None:
        raise _refusal(text)
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, off_hours, off_minutes = found.groups()[6:]
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if sign:
            if int(off_hours) > 23 or int(off_minutes) > 59:
                raise _refusal(text)
            offset = timedelta(hours=int(off_hours), minutes=int(off_minutes))
            whole = whole - offset if sign == "+" else whole + offset
    except (ValueError, OverflowError):
        raise _refusal(text) from None
    since = whole - _EPOCH
    nanos = int((fraction or "0")[:9].ljust(9, "0"))
    return since.days * 86_400 + since.seconds, nanos


def _refusal(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"{text[:40]!r} is not a time", hint="write it as RFC 3339 says, for example 2030-01-31T23:59:59.5Z"
    )
