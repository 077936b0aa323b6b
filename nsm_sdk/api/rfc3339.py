# SPDX-License-Identifier: Apache-2.0
"""Times as texts, RFC 3339 with nanoseconds: the form of a token's expiry in gRPC metadata.

Does:  writes and reads such texts. Written ones are UTC with trailing zeros of the fraction left out.
Place: token metadata, here and in the transport.
State: a bounded cache of texts read; a token comes again and again while it is handed out.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta

from nsm_sdk.api._gen.wellknown import Timestamp
from nsm_sdk.api.path import timestamp
from nsm_sdk.errors import InvalidRequest

_FORM = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,32}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 64
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
    if len(text) > _LONGEST:
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
