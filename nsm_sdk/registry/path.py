# SPDX-License-Identifier: Apache-2.0
"""The path of a registration: one token for each hop, as JSON in the call's metadata.

Does:  reads and writes the `path` metadata, and moves it one hop on and back.
Place: `UpdatePath`, `Connect` and `Expire` of this room.
State: none.
"""

from __future__ import annotations

import json
from collections.abc import MutableSequence
from dataclasses import dataclass, field

from nsm_sdk.errors import InvalidRequest

PATH_KEY = "path"
"""Key of the metadata, in requests and in the headers of answers."""

_LONGEST = 1 << 20
_MOST = 256
_UINT32 = 1 << 32


@dataclass(frozen=True, slots=True)
class AuthPath:
    """Who passed a registration on. `index` is the hop whose turn it is."""

    index: int = 0
    tokens: tuple[str, ...] = field(default=(), repr=False)

    def moved(self, peer_token: str, own_token: str) -> AuthPath:
        """The path one hop on, with fresh tokens of the previous hop and of this one.

        InvalidRequest when the index does not point into the path.
        """
        if not self.tokens:
            return AuthPath(1, (peer_token, own_token))
        if self.index + 1 > len(self.tokens):
            raise InvalidRequest(
                f"Path.Index+1=={self.index + 1} should be less or equal len(Path.PathSegments)=={len(self.tokens)}",
                hint="the index in the `path` metadata must be that of the last hop's segment",
            )
        return AuthPath(
            self.index + 1, (*self.tokens[: self.index], peer_token, own_token, *self.tokens[self.index + 2 :])
        )

    def dumps(self) -> str:
        """The metadata's text, as Go writes it."""
        segments = [{"token": token} for token in self.tokens] or None
        return json.dumps({"Index": self.index, "PathSegments": segments}, separators=(",", ":"))


NO_PATH = AuthPath().dumps()
"""What is sent where there is no path yet."""


def parse_path(text: str | None) -> AuthPath | None:
    """The path of a metadata value; None for a missing or malformed one. Names of members match in any case."""
    if text == NO_PATH:
        return AuthPath()
    if text is None or len(text) > _LONGEST:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    members = {key.lower(): value for key, value in found.items()}
    index = members.get("index")
    segments = members.get("pathsegments")
    index = 0 if index is None else index
    segments = [] if segments is None else segments
    if type(index) is not int or not 0 <= index < _UINT32 or not isinstance(segments, list) or len(segments) > _MOST:
        return None
    tokens: list[str] = []
    for segment in segments:
        if segment is None:
            segment = {}
        if not isinstance(segment, dict):
            return None
        token = {key.lower(): value for key, value in segment.items()}.get("token")
        if token is not None and not isinstance(token, str):
            return None
        tokens.append(token or "")
    return AuthPath(index, tuple(tokens))


def set_id(path_ids: MutableSequence[str], at: int, identity: str) -> None:
    """Replace the id of a hop, or append it where the list is short."""
    if at < len(path_ids):
        path_ids[at] = identity
    else:
        path_ids.append(identity)
