# SPDX-License-Identifier: Apache-2.0
"""What gRPC writes into headers.

Does:  time-outs, messages of a status, binary metadata, and what of the headers is an application's.
Place: both ends of a connection.
State: none.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

_PLAIN: Final = re.compile(r"[ -$&-~]*")
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def timeout_text(seconds: float) -> str:
    """`grpc-timeout`, in the finest unit that eight digits can say, rounded up."""
    for unit in "num":
        amount = math.ceil(seconds / _UNITS[unit])
        if amount < 100_000_000:
            return f"{amount}{unit}"
    return f"{min(math.ceil(seconds), 99_999_999)}S"


def read_timeout(text: str) -> float | None:
    """Seconds of a `grpc-timeout`; None for what is none."""
    found = _TIMEOUT.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


def message_text(text: str) -> str:
    """A status text as `grpc-message`: percent-encoded UTF-8."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def read_message(text: str) -> str:
    """The status text of a `grpc-message`."""
    return unquote(text, errors="replace") if "%" in text else text


def binary_text(value: bytes) -> str:
    """The value of a `-bin` key."""
    return base64.b64encode(value).rstrip(b"=").decode()


def read_binary(text: str) -> bytes:
    """The bytes of a `-bin` key; empty for what is no base64."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def metadata_of(fields: Mapping[str, str]) -> dict[str, str]:
    """What an application sent: without gRPC's own headers and without binary values."""
    return {
        key: value
        for key, value in fields.items()
        if key not in _OWN and not key.startswith("grpc-") and not key.endswith("-bin")
    }


_OWN: Final = frozenset((":method", ":scheme", ":path", ":authority", ":status", "te", "content-type"))
