# SPDX-License-Identifier: Apache-2.0
"""Metadata that travels beside the messages.

Does:  adds the token of the caller to every call; checks what elements want to send; keeps of what arrives the text.
Place: the edges of every adapter.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY, format_time
from nsm_sdk.core import Call
from nsm_sdk.errors import InvalidRequest

PATH_KEY = "path"
"""The registry's path travels under this key, in requests and in response headers."""

_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]*[0-9a-z_.](?<!-bin)")


class TokenSource(Protocol):
    """Who the caller is. Asked for every call; may cache."""

    def token(self, peer: str) -> tuple[str, float]:
        """A signed token for `peer` and when it expires, in seconds since 1970.

        `peer` is the SPIFFE id that the transport has verified, or an empty text where it knows none.
        """
        ...


# A source that keeps its token names the same time again and again.
_expiry_text = functools.lru_cache(maxsize=256)(format_time)


def outgoing(call: Call, tokens: TokenSource | None) -> list[tuple[str, str]]:
    """What goes with a call to the next hop."""
    pairs = checked(call.onward) if call.onward else []
    if tokens is not None:
        token, expires = tokens.token("")
        pairs.append((TOKEN_KEY, token))
        pairs.append((EXPIRES_KEY, _expiry_text(expires)))
    return pairs


def checked(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers as pairs; values never show in the error, because they may hold tokens."""
    for key, value in headers.items():
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                f"metadata key {key[:80]!r} cannot be sent", hint="use lower case letters, digits, '-', '_' and '.'"
            )
        if not (value.isascii() and value.isprintable()):
            raise InvalidRequest(f"the value of metadata {key!r} cannot be sent", hint="encode it as printable ASCII")
    return list(headers.items())


def incoming(pairs: Iterable[tuple[str, Any]] | None) -> dict[str, str]:
    """What a peer sent; the last value of a key wins, binary values are left out."""
    return {key: value for key, value in pairs or () if isinstance(value, str)}
