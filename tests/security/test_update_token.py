# SPDX-License-Identifier: Apache-2.0
"""Tokens in the path.

Does:  who is refused, what a close does with bad tokens, whose token goes where, and that none is logged.
Place: nsm_sdk.security.update_token.
State: none.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from nsm_sdk.api import Connection, Path, PathSegment, Request
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY, claims, format_time
from nsm_sdk.core import Cause, Peer
from nsm_sdk.errors import FailedPrecondition, InvalidRequest, NsmError, Unauthenticated, Unavailable
from nsm_sdk.security import Authenticate, Insecure, TokenGenerator, TokenSource, UpdateToken
from nsm_sdk.testing import drive, rig

NOW = 2_000_000_000.0
OWN = TokenGenerator(Insecure("nsmgr", "m"), wall=lambda: NOW)
THEIRS = TokenGenerator(Insecure("nsc", "a"), wall=lambda: NOW)


class Broken:
    """A source that cannot, and says too much."""

    def token(self, peer: str) -> tuple[str, float]:
        raise RuntimeError("the secret key is hunter2")


class Refusing:
    """A source without an identity."""

    def token(self, peer: str) -> tuple[str, float]:
        raise FailedPrecondition("no svid")


class Standing:
    """A wall clock that stands; the monotonic one does too."""

    def now(self) -> float:
        return 5.0

    def wall(self) -> float:
        return NOW


def request(index: int = 1, names: tuple[str, ...] = ("nsc", "m")) -> Request:
    segments = [PathSegment(name=name, id=f"id-{name}") for name in names]
    return Request(connection=Connection(id="id-m", path=Path(index=index, path_segments=segments)))


def metadata(source: TokenGenerator = THEIRS) -> dict[str, str]:
    token, expires = source.token("")
    return {TOKEN_KEY: token, EXPIRES_KEY: format_time(expires)}


async def outcome(source: TokenSource, request: Request, sent: dict[str, str], **fields: Any) -> Connection:
    driven = await drive(UpdateToken(source), request=request, check=False, clock=Standing(), metadata=sent, **fields)
    assert driven.connection is not None
    return driven.connection


async def test_each_segment_gets_its_token() -> None:
    sent = metadata()
    conn = await outcome(OWN, request(), sent, peer=Peer(identity="spiffe://example.org/nsc"))
    caller, own = conn.path.path_segments
    assert caller.token == sent[TOKEN_KEY]
    assert caller.expires.seconds == NOW + 600
    assert claims(own.token).audience == ("spiffe://example.org/nsc",)
    assert claims(own.token).subject == "spiffe://insecure.test/nsmgr/m"


async def test_without_a_time_in_the_metadata_the_tokens_own_counts() -> None:
    conn = await outcome(OWN, request(), {TOKEN_KEY: metadata()[TOKEN_KEY]})
    assert conn.path.path_segments[0].expires.seconds == NOW + 600


async def test_a_token_that_lives_for_less_than_a_second() -> None:
    brief = TokenGenerator(Insecure("nsc", "a"), max_lifetime=0.4, wall=lambda: NOW + 0.5)
    asked, sent = request(), metadata(brief)
    assert claims(sent[TOKEN_KEY]).expires == NOW

    class Later(Standing):
        def wall(self) -> float:
            return NOW + 0.6

    driven = await drive(Authenticate(), request=asked, check=False, clock=Later(), metadata=sent)
    assert driven.connection is not None


OLD = TokenGenerator(Insecure("nsc", "a"), max_lifetime=-60, wall=lambda: NOW)


@pytest.mark.parametrize(
    ("asked", "sent", "kind"),
    [
        (request(), {}, Unauthenticated),
        (request(), {EXPIRES_KEY: format_time(NOW + 5)}, Unauthenticated),
        (request(), {TOKEN_KEY: "not-a-token", EXPIRES_KEY: format_time(NOW + 5)}, Unauthenticated),
        (request(), {TOKEN_KEY: "not-a-token"}, Unauthenticated),
        (request(), {**metadata(), EXPIRES_KEY: "soon"}, Unauthenticated),
        (request(), {**metadata(), EXPIRES_KEY: format_time(NOW)}, Unauthenticated),
        (request(), {TOKEN_KEY: f"{metadata()[TOKEN_KEY]}, {metadata()[TOKEN_KEY]}"}, Unauthenticated),
        (request(), {TOKEN_KEY: metadata()[TOKEN_KEY] + "x" * 20_000}, Unauthenticated),
        (request(), metadata(OLD), Unauthenticated),
        (request(0, ("m",)), metadata(), InvalidRequest),
        (request(0, ()), metadata(), InvalidRequest),
        (request(2), metadata(), InvalidRequest),
        (request(4_000_000_000), metadata(), InvalidRequest),
        (Request(), metadata(), InvalidRequest),
    ],
)
async def test_refused_before_anybody_else_is_asked(asked: Request, sent: dict[str, str], kind: type[NsmError]) -> None:
    async with rig(Authenticate(), check=False, clock=Standing()) as bench:
        with pytest.raises(kind) as caught:
            await bench.request(asked, metadata=sent)
        assert bench.seen.requests == 0
        assert caught.value.hint
        for value in sent.values():
            assert len(value) < 30 or value not in str(caught.value)
        # The same message can still be closed.
        await bench.close(asked.connection, metadata=sent)
        assert bench.seen.closes == 1


@pytest.mark.parametrize("sent", [{}, {TOKEN_KEY: "x"}, {**metadata(), EXPIRES_KEY: "soon"}])
async def test_a_token_that_cannot_be_read_leaves_the_segment_alone(sent: dict[str, str]) -> None:
    asked = request()
    asked.connection.path.path_segments[0].token = "before"
    async with rig(UpdateToken(OWN), check=False, clock=Standing()) as bench:
        conn = await bench.request(asked, metadata=sent)
        assert conn.path.path_segments[0].token == "before"
        assert conn.path.path_segments[1].token


async def test_an_event_of_our_own_needs_no_callers_token() -> None:
    asked = request()
    asked.connection.path.path_segments[0].token = "before"
    conn = await outcome(OWN, asked, {}, cause=Cause.REFRESH)
    assert conn.path.path_segments[0].token == "before"
    assert claims(conn.path.path_segments[1].token).subject


@pytest.mark.parametrize(("source", "kind"), [(Broken(), Unavailable), (Refusing(), FailedPrecondition)])
async def test_without_a_token_of_our_own_a_request_fails_and_a_close_goes_on(
    source: TokenSource, kind: type[NsmError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with rig(UpdateToken(source), check=False, clock=Standing()) as bench:
        with pytest.raises(kind) as caught:
            await bench.request(request(), metadata=metadata())
        await bench.close(request().connection, metadata=metadata())
        assert bench.seen.verbs == ["close"]
        assert "hunter2" not in str(caught.value) + caplog.text


async def test_no_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sent = metadata()
    async with rig(UpdateToken(OWN), check=False, clock=Standing()) as bench:
        for bad in (sent, {TOKEN_KEY: sent[TOKEN_KEY], EXPIRES_KEY: "soon"}, {TOKEN_KEY: sent[TOKEN_KEY] + ",x"}):
            await bench.request(request(), metadata=bad)
            await bench.close(request(9).connection, metadata=bad)
    assert caplog.text
    assert sent[TOKEN_KEY] not in caplog.text
    assert OWN.token("")[0] not in caplog.text
    assert "secret" not in repr(UpdateToken(OWN)).lower()
