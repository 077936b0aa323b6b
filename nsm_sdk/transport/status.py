# SPDX-License-Identifier: Apache-2.0
"""Errors on the wire.

Does:  turns an `NsmError` into status, plain text and a small trailer that names the hop and element where it arose,
       the hint and the hops it passed; and back. Texts are bounded, and tokens are blotted out of them.
Place: the edges of every adapter, also in process, so that an error reads the same everywhere.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from nsm_sdk.errors import NsmError, Status, from_status

TRAIL_KEY = "nsm-trail-bin"
"""Trailing metadata of an error: JSON with `hop`, `element`, `hint` and `trail`. Peers of other make ignore it."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata of gRPC's own: milliseconds that the caller shall wait before it tries again."""
MOST_PUSHBACK = 60.0
"""Seconds that a peer can make us wait. Also what a negative or unreadable value means, by which gRPC forbids retries:
a connection that was refused once is still to be had one day."""

_TEXT = 2048
_LOOKED_AT = 4
"""How many times as long as its limit a text may be before it is cut unread: a peer's text may have any length."""
_HINT = 512
_NAME = 128
_HOPS = 16
_TRAIL = 16384
_WORD = re.compile(r"[A-Za-z0-9_.-]{8,}+")
_DIGITS = 10
_TOKEN_HEAD = 7
"""Characters that the first part of a token has at least."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it travels."""

    status: Status
    text: str
    trail: bytes
    pushback: str = ""
    """The value of `PUSHBACK_KEY`; empty: it is not sent."""


def clean(text: str, limit: int = _TEXT) -> str:
    """The text without tokens and control characters, cut to `limit` characters."""
    text = _CONTROL.sub("?", _WORD.sub(_blotted, text[: _LOOKED_AT * limit]))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _blotted(word: re.Match[str]) -> str:
    """The word up to where a token begins in it. One pass: the word may be a peer's, made to take long."""
    text = word[0]
    at = text.find("eyJ")
    while at >= 0:
        dot = text.find(".", at)
        if dot < 0:
            break
        if dot - at >= _TOKEN_HEAD and dot + 1 < len(text):
            return f"{text[:at]}<token>"
        at = text.find("eyJ", at + 3)
    return text


def encode(error: NsmError, hop: str) -> Failure:
    """The error as `hop` sends it to its caller. The text is the bare message: other programs match on it."""
    trail = error.trail if error.hop == hop else (hop, *error.trail)
    parts = {
        "hop": clean(error.hop, _NAME),
        "element": clean(error.element, _NAME),
        "hint": clean(error.hint, _HINT),
        "trail": [clean(name, _NAME) for name in trail[:_HOPS]],
    }
    status = error.status if error.status is not Status.OK else Status.UNKNOWN
    trailer = json.dumps({key: part for key, part in parts.items() if part}, ensure_ascii=False)
    after = error.retry_after
    # Rounded up: who waits a moment less than asked finds the place still taken.
    pushback = "" if after is None else str(math.ceil(min(max(after, 0.0), MOST_PUSHBACK) * 1000))
    return Failure(status, clean(error.message), trailer.encode(), pushback)


def decode(status: int, text: str, trail: bytes, peer: str, pushback: str = "") -> NsmError:
    """The error that a peer answered. Without a trailer of ours, code and text stay, and the hop is `peer`.

    `pushback` is the text under `PUSHBACK_KEY`; empty where the peer sent none.
    """
    parts = _parts(trail)
    names = parts.get("trail")
    return from_status(
        status if status else Status.UNKNOWN,
        clean(text),
        hop=_name(parts, "hop", _NAME) or clean(peer, _NAME),
        element=_name(parts, "element", _NAME),
        hint=_name(parts, "hint", _HINT),
        trail=tuple(clean(name, _NAME) for name in names[:_HOPS] if isinstance(name, str))
        if isinstance(names, list)
        else (),
        retry_after=_retry_after(pushback),
    )


def _retry_after(text: str) -> float | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        return MOST_PUSHBACK
    return min(int(text) / 1000, MOST_PUSHBACK)


def _parts(trail: bytes) -> dict[str, object]:
    if not trail or len(trail) > _TRAIL:
        return {}
    try:
        parsed = json.loads(trail)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _name(parts: dict[str, object], key: str, limit: int) -> str:
    value = parts.get(key)
    return clean(value, limit) if isinstance(value, str) else ""
