# SPDX-License-Identifier: Apache-2.0
"""The path of a registration: one token for each hop, as JSON in the call's metadata.

`AuthPath` is the path itself, `UpdatePath` the element that takes it from the caller's metadata, moves it one hop on,
and gives it back with the answer. `Connect` and `Expire` read it too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, MutableSequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from nsm_sdk.api.limits import check_lengths
from nsm_sdk.api.tokens import TOKEN_KEY, subject
from nsm_sdk.core import Call, E, Found, Query, RegistryElement, RegistryNext
from nsm_sdk.errors import Internal, InvalidRequest, NsmError, Unavailable

PATH_KEY = "path"
"""Key of the metadata, in requests and in the headers of answers."""
TAKEOVER_KEY = "nsm-takeover"
"""Key of the metadata by which a manager says that one of its endpoints takes over the name of another: the URL of the
former and of the new one, with a blank between. The entries of both have the manager's address."""

_LONGEST = 1 << 20
_MOST = 256
_UINT32 = 1 << 32


@dataclass(frozen=True, slots=True)
class AuthPath:
    """The hops that passed a registration on. `index` is the hop whose turn it is."""

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


logger = logging.getLogger("nsm_sdk.registry")


class TokenSource(Protocol):
    """Gives tokens for peers."""

    def token(self, peer: str) -> tuple[str, float]:
        """A token for the peer of that SPIFFE id (empty: unknown), and its expiry in seconds since 1970."""
        ...


class UpdatePath(RegistryElement[E]):
    """Moves the path one hop on, with the caller's token and one of our own, which `source` makes.

    The SPIFFE ids of both go into the entry's `path_ids`, and the path comes back with the answer. A caller without
    a path, as peers before 1.7 are, is served without. One of too many hops is refused, in finds too. Stands
    first in a registry's chain, above authorisation and `Begin`.

    InvalidRequest for a path whose index points nowhere, Unavailable when no token can be made.
    """

    unique: ClassVar[bool] = True

    def __init__(self, source: TokenSource) -> None:
        self.source = source

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        back = self._update(call, entry)
        registered = await next.register(call, entry)
        _answer(call, back)
        return registered

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        back = self._update(call, entry)
        await next.unregister(call, entry)
        _answer(call, back)

    def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        check_lengths(query.entry)
        return next.find(call, query)

    def _update(self, call: Call, entry: E) -> AuthPath | None:
        """Write tokens and ids; returns the path as the caller is to get it back, None if it sent none."""
        check_lengths(entry)
        text = call.metadata.get(PATH_KEY)
        given = parse_path(text)
        if text is not None and given is None:
            logger.debug("%s: %r comes with a path that cannot be read", call.runtime.name, entry.name)
        peer_token = call.metadata.get(TOKEN_KEY, "")
        own_token = self._own_token(call)
        moved = (given or AuthPath()).moved(peer_token, own_token)
        own_id = subject(own_token)
        if not own_id:
            raise Internal("our own token has no subject", hint="look at the hop's identity source")
        set_id(entry.path_ids, moved.index - 1, subject(peer_token))
        set_id(entry.path_ids, moved.index, own_id)
        if given is None:
            call.onward[PATH_KEY] = NO_PATH
            return None
        call.onward[PATH_KEY] = moved.dumps()
        return AuthPath(moved.index - 1, moved.tokens)

    def _own_token(self, call: Call) -> str:
        try:
            return self.source.token(call.peer.identity)[0]
        except NsmError:
            raise
        except Exception as error:
            # Not its text: it comes from what keeps the keys.
            raise Unavailable(
                f"cannot make a token ({type(error).__name__})", hint="look at the hop's identity source"
            ) from None


def _answer(call: Call, back: AuthPath | None) -> None:
    """Give the path back, completed by the hops below."""
    if back is None:
        return
    below = parse_path(call.answered.get(PATH_KEY))
    tokens = below.tokens if below is not None and below.tokens else back.tokens
    call.answer[PATH_KEY] = AuthPath(back.index, tokens).dumps()
