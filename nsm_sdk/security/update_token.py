# SPDX-License-Identifier: Apache-2.0
"""Tokens in the path of a connection.

Does:  `Authenticate` refuses a request whose caller does not say who it is, before anything exists for it.
       `UpdateToken` writes the caller's token, as it came in the call's metadata, into the caller's segment, and a
       token of our own into our segment.
Place: every hop that others call. `Authenticate` above `Begin`, below `UpdatePath`; `UpdateToken` right below `Begin`,
       whose own refreshes and closes need a fresh token of ours, and above authorisation, which reads both tokens.
"""

from __future__ import annotations

import logging

from nsm_sdk.api import Connection, PathSegment, Request, Timestamp, describe, previous, seconds, segment, set_expiry
from nsm_sdk.api.path import timestamp
from nsm_sdk.api.tokens import EXPIRES_KEY, MAX_TOKEN_CHARS, TOKEN_KEY, claims, parse_time
from nsm_sdk.core import Call, Cause, Element, Next
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.update_path import UpdatePath
from nsm_sdk.errors import InvalidRequest, NsmError, Unauthenticated, Unavailable
from nsm_sdk.security.spiffe_id import is_spiffe_id
from nsm_sdk.security.tokens import TokenSource

logger = logging.getLogger("nsm_sdk.security")

_HINT = f"send {TOKEN_KEY} and {EXPIRES_KEY} in the call's metadata"


class Authenticate(Element):
    """Let a caller in that has a path segment and sends a token with a SPIFFE id and an expiry that lies ahead;
    InvalidRequest or Unauthenticated for all others. Whether the token is genuine the transport and policies find out.

    A close goes on whatever is wrong with tokens.
    """

    after = (UpdatePath,)
    unique = True

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        if previous(conn) is None:
            raise InvalidRequest(
                f"connection {describe(conn)} has no path segment of its caller",
                hint="send a path whose first segment has your name, other than ours, and the connection's id",
            )
        token, expires = read_token(call)
        _check(token, seconds(expires), call.runtime.clock.wall())
        return await next.request(call, request)


class UpdateToken(Element):
    """Keep the tokens of the path fresh; `source` makes our own. A caller's token that cannot be read is left out, and
    its segment stays as it came; where that must not be, `Authenticate` stands above.

    A close goes on whatever is wrong with tokens.
    """

    after = (UpdatePath, Begin)
    unique = True

    def __init__(self, source: TokenSource) -> None:
        self.source = source

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        own = segment(conn)
        self._write_callers(call, conn)
        self._write_own(call, own)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        try:
            own = segment(conn)
            self._write_callers(call, conn)
            self._write_own(call, own)
        except NsmError as error:
            # What cannot be authorised below is still freed here.
            logger.warning("%s: closing %s without fresh tokens: %s", call.runtime.name, describe(conn), error)
        await next.close(call, conn)

    def _write_callers(self, call: Call, conn: Connection) -> None:
        if call.cause is not Cause.CALL:
            return  # our own event: the segment has what the caller sent last
        caller = previous(conn)
        if caller is None:
            return
        try:
            token, expires = read_token(call)
        except Unauthenticated as error:
            logger.debug("%s: %s: %s", call.runtime.name, describe(conn), error)
            return
        caller.token = token
        caller.expires.CopyFrom(expires)

    def _write_own(self, call: Call, own: PathSegment) -> None:
        try:
            token, expires = self.source.token(call.peer.identity)
        except NsmError:
            raise
        except Exception as error:
            # Not its text: it comes from whoever keeps the keys.
            raise Unavailable(
                f"cannot make a token ({type(error).__name__})", hint="look at the hop's identity source"
            ) from None
        own.token = token
        set_expiry(own, expires)


def read_token(call: Call) -> tuple[str, Timestamp]:
    """The caller's token and its expiry. Unauthenticated unless there is exactly one, with a time.

    Where the metadata has no time, the token's own `exp` is taken.
    """
    token = call.metadata.get(TOKEN_KEY, "")
    if not token:
        raise Unauthenticated("the caller sends no token", hint=_HINT)
    if "," in token or len(token) > MAX_TOKEN_CHARS:
        # Several values of one key arrive joined by commas; a token has none.
        raise Unauthenticated("the caller sends several tokens, or something too long to be one", hint=_HINT)
    text = call.metadata.get(EXPIRES_KEY, "")
    if text:
        try:
            return token, parse_time(text)
        except InvalidRequest as error:
            raise Unauthenticated(f"the token's expiry: {error.message}", hint=error.hint) from None
    at = claims(token).expires
    if at is None:
        raise Unauthenticated("the caller's token comes without its expiry", hint=_HINT)
    return token, timestamp(at)


def _check(token: str, expires: float, now: float) -> None:
    """Raises Unauthenticated unless the token says who and until when, and that time lies ahead."""
    said = claims(token)
    if not is_spiffe_id(said.subject) or said.expires is None:
        raise Unauthenticated(
            "the caller's token does not say who it is, or until when",
            hint="a token is a JWT with a SPIFFE id as `sub` and a time as `exp`",
        )
    # `exp` has whole seconds: a token is good until the end of its last one.
    ended = now - min(expires, said.expires + 1)
    if ended >= 0:
        raise Unauthenticated(
            f"the token of {said.subject} has expired {ended:.1f} s ago", hint="send a fresh token; compare the clocks"
        )
