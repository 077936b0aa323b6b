# SPDX-License-Identifier: Apache-2.0
"""Tokens: what a hop says of itself.

Does:  `TokenGenerator` makes JWTs for peers; what others say is read by `nsm_sdk.api.tokens`.
       A token is made once per peer and handed out again while at least 95 % of its life is left, so that a request
       pays for a look-up and not for a signature.
Place: the transport attaches tokens to what goes out; `UpdateToken` writes them into paths.
State: tokens by peer, bounded; the clock of the role that serves it.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from nsm_sdk.core import Runtime, Service
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.security.identity import Insecure, Signer, Source
from nsm_sdk.security.spiffe_id import is_spiffe_id

MAX_LIFETIME = 600.0
"""Seconds that a token lives unless told otherwise."""
FRESH = 0.95
"""Share of its life that a token must have left to be handed out again."""

LATEST = 253_402_300_799.0
"""The end of the year 9999: no message can hold a later time."""
_PEERS = 1024


class TokenSource(Protocol):
    """Gives tokens for peers."""

    def token(self, peer: str) -> tuple[str, float]:
        """A token for the peer of that SPIFFE id (empty: unknown), and its expiry in seconds since the epoch."""
        ...


class TokenGenerator(Service):
    """Makes tokens that live `max_lifetime` seconds, or shorter if a certificate ends sooner.

    Served with a role (as part of a chain, or in `Role(services=…)`) it goes by the role's clock.
    """

    shareable: ClassVar[bool] = True

    def __init__(
        self, source: Source, *, max_lifetime: float = MAX_LIFETIME, wall: Callable[[], float] = time.time
    ) -> None:
        if math.isnan(max_lifetime):
            raise ProgrammingError("a token's life must be a number of seconds, not NaN")
        self.source = source
        self.max_lifetime = max_lifetime
        self._wall = wall
        self._made: OrderedDict[tuple[str, float], _Made] = OrderedDict()

    @classmethod
    def of(cls, identity: Source | TokenGenerator | None, role: str, name: str) -> TokenGenerator:
        """The generator for an identity; the insecure one of that role and name where there is none."""
        return identity if isinstance(identity, TokenGenerator) else cls(identity or Insecure(role, name))

    async def start(self, runtime: Runtime) -> None:
        self._wall = runtime.clock.wall
        self._made.clear()

    def token(self, peer: str = "", *, peer_not_after: float = math.inf) -> tuple[str, float]:
        """A token for `peer`, and its expiry; `peer_not_after` is when the peer's certificate ends.

        The source's error when there is no identity.
        """
        signer = self.source.signer()
        now = self._wall()
        key = (peer, peer_not_after)
        made = self._made.get(key)
        # A clock that was set back makes a cached token look newer than it is; then make another.
        if made is not None and made.signer is signer and made.made <= now <= made.until:
            return made.token, made.expires
        expires = min(now + self.max_lifetime, signer.not_after, peer_not_after, LATEST)
        body: dict[str, Any] = {"sub": signer.subject}
        if is_spiffe_id(peer):
            body["aud"] = [peer]
        body["exp"] = math.floor(expires)
        token = signer.sign(body)
        self._made[key] = _Made(token, expires, signer, now, now + (1 - FRESH) * (expires - now))
        self._made.move_to_end(key)
        if len(self._made) > _PEERS:
            self._made.popitem(last=False)
        return token, expires

    def __repr__(self) -> str:
        return f"TokenGenerator({self.source!r}, max_lifetime={self.max_lifetime})"


@dataclass(frozen=True, slots=True)
class _Made:
    token: str = field(repr=False)
    expires: float
    signer: Signer
    made: float
    until: float
