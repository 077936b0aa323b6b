# SPDX-License-Identifier: Apache-2.0
"""Making and reading tokens.

Does:  what is in a token, how long it is handed out, and that no text brings the reader down.
Place: nsm_sdk.security.tokens.
State: none.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api.tokens import Claims, claims
from nsm_sdk.errors import FailedPrecondition, ProgrammingError
from nsm_sdk.security import Insecure, Nobody, Signer, Svid, TokenGenerator
from nsm_sdk.security.tokens import FRESH, LATEST
from tests.security.certificates import issue

PEER = "spiffe://example.org/peer"


class Wall:
    """A clock that stands still."""

    def __init__(self, now: float = 1_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Rotating:
    """A source whose identity can be replaced."""

    def __init__(self, subject: str) -> None:
        self.current = Insecure("r", "r", subject=subject)

    def signer(self) -> Signer:
        return self.current.signer()


def decoded(token: str) -> dict[str, Any]:
    body: dict[str, Any] = jwt.decode(token, options={"verify_signature": False, "verify_exp": False})
    return body


def test_a_token_says_who_for_whom_and_until_when() -> None:
    tokens = TokenGenerator(Insecure("nsc", "a"), max_lifetime=600, wall=Wall())
    token, expires = tokens.token(PEER)
    assert expires == 1_000_600.25
    assert decoded(token) == {"sub": "spiffe://insecure.test/nsc/a", "aud": [PEER], "exp": 1_000_600}
    assert claims(token) == Claims("spiffe://insecure.test/nsc/a", (PEER,), 1_000_600.0)


@pytest.mark.parametrize("peer", ["", "unix:///tmp/x", "10.0.0.1:5000"])
def test_a_peer_without_a_spiffe_id_is_no_audience(peer: str) -> None:
    token, _ = TokenGenerator(Insecure("nsc", "a"), wall=Wall()).token(peer)
    assert "aud" not in decoded(token)


def test_certificates_end_tokens() -> None:
    svid = Svid(*issue("spiffe://example.org/nsc", not_after=1_000_300))
    tokens = TokenGenerator(svid, max_lifetime=600, wall=Wall())
    for peer_ends, ends in ((math.inf, 1_000_300), (2_000_000, 1_000_300), (1_000_100, 1_000_100)):
        token, expires = tokens.token(PEER, peer_not_after=peer_ends)
        assert expires == ends
        assert claims(token).expires == ends


@given(
    lifetime=st.floats(0.001, 1e7),
    ages=st.lists(st.floats(0, 1), min_size=1, max_size=6),
)
def test_a_token_handed_out_has_most_of_its_life_left(lifetime: float, ages: list[float]) -> None:
    wall = Wall()
    tokens = TokenGenerator(Insecure("nsc", "a"), max_lifetime=lifetime, wall=wall)
    for age in ages:
        wall.now += age * lifetime * 0.1
        _, expires = tokens.token(PEER)
        assert expires - wall.now >= FRESH * lifetime - 1e-6


def test_a_token_is_kept_for_a_twentieth_of_its_life_and_no_longer() -> None:
    wall = Wall(1_000_000.0)
    tokens = TokenGenerator(Insecure("nsc", "a"), max_lifetime=1000, wall=wall)
    first = tokens.token(PEER)
    wall.now += 49
    assert tokens.token(PEER) == first
    wall.now += 2
    assert tokens.token(PEER)[1] == first[1] + 51
    wall.now -= 100
    assert tokens.token(PEER)[1] == wall.now + 1000, "the clock was set back"


def test_every_peer_gets_a_token_of_its_own_and_a_new_key_makes_new_ones() -> None:
    source = Rotating("spiffe://example.org/old")
    tokens = TokenGenerator(source, wall=Wall())
    assert decoded(tokens.token(PEER)[0])["aud"] != decoded(tokens.token(PEER + "2")[0])["aud"]
    source.current = Insecure("r", "r", subject="spiffe://example.org/new")
    assert decoded(tokens.token(PEER)[0])["sub"] == "spiffe://example.org/new"


def test_many_peers_take_bounded_memory() -> None:
    tokens = TokenGenerator(Insecure("nsc", "a"), wall=Wall())
    for number in range(1100):
        tokens.token(f"{PEER}{number}")
    assert len(tokens._made) <= 1024


def test_a_life_without_end_ends_with_the_calendar() -> None:
    token, expires = TokenGenerator(Insecure("nsc", "a"), max_lifetime=math.inf, wall=Wall()).token()
    assert claims(token).expires == expires == LATEST
    with pytest.raises(ProgrammingError):
        TokenGenerator(Insecure("nsc", "a"), max_lifetime=math.nan)


def test_without_identity_no_token() -> None:
    with pytest.raises(FailedPrecondition):
        TokenGenerator(Nobody()).token(PEER)


def test_nothing_secret_in_a_repr() -> None:
    tokens = TokenGenerator(Insecure("nsc", "a"), wall=Wall())
    token, _ = tokens.token(PEER)
    assert token.split(".")[2] not in repr(tokens)
    assert "insecure identity" not in repr(tokens)


@given(st.text(max_size=200) | st.builds(lambda a, b, c: f"{a}.{b}.{c}", st.text(), st.text(), st.text()))
def test_reading_is_total(text: str) -> None:
    assert isinstance(claims(text), Claims)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional={"sub": JSON, "aud": JSON, "exp": JSON}) | JSON)
def test_reading_any_body_is_total(body: object) -> None:
    raw = base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")
    said = claims(f"e30.{raw}.x")
    assert isinstance(said.subject, str)
    assert said.expires is None or math.isfinite(said.expires)


def test_numbers_too_large_are_no_expiry() -> None:
    for exp in ("1" + "0" * 400, "1e999", "NaN", "true", '"5"', "9" * 5000):
        raw = base64.urlsafe_b64encode(f'{{"sub":"a","exp":{exp}}}'.encode()).decode()
        assert claims(f"e30.{raw}.x").expires is None


def test_an_enormous_text_is_not_looked_into() -> None:
    raw = base64.urlsafe_b64encode(b'{"sub":"' + b"a" * 20_000 + b'"}').decode()
    assert claims(f"e30.{raw}.x") == Claims()
