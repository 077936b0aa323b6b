# SPDX-License-Identifier: Apache-2.0
"""Who registers: the path of tokens, and the ids of all hops in the entry.

Does:  takes the caller's path from the call's metadata, adds the caller's token and one of our own, sends it onward,
       and gives it back with the answer. Writes the SPIFFE ids of both into the entry's `path_ids`. A caller without
       a path (as peers before 1.7 are) is served without. What is too much of anything is refused, in finds too.
Place: first in a registry's chain, above authorisation and `Begin`.
State: none.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import ClassVar, Protocol

from nsm_sdk.api.limits import check_limits
from nsm_sdk.api.tokens import TOKEN_KEY, subject
from nsm_sdk.core import Call, E, Found, Query, RegistryElement, RegistryNext
from nsm_sdk.errors import Internal, NsmError, Unavailable
from nsm_sdk.registry.path import NO_PATH, PATH_KEY, AuthPath, parse_path, set_id

logger = logging.getLogger("nsm_sdk.registry")


class TokenSource(Protocol):
    """Gives tokens for peers."""

    def token(self, peer: str) -> tuple[str, float]:
        """A token for the peer of that SPIFFE id (empty: unknown), and its expiry in seconds since 1970."""
        ...


class UpdatePath(RegistryElement[E]):
    """Move the path one hop on; `source` makes our own token.

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
        check_limits(query.entry, call.size)
        return next.find(call, query)

    def _update(self, call: Call, entry: E) -> AuthPath | None:
        """Write tokens and ids; answers the path as the caller is to get it back, None if it sent none."""
        check_limits(entry, call.size)
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
            # Not its text: it comes from whoever keeps the keys.
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
