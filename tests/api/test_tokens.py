# SPDX-License-Identifier: Apache-2.0
"""The subject of a token that nobody has verified: whatever a peer sends gives a text."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api.tokens import subject


def token(claims: bytes) -> str:
    """A JWT with these bytes for claims, and no signature worth the name."""
    return f"header.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.signature"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_the_subject_is_read(name: str) -> None:
    assert subject(token(json.dumps({"sub": name, "exp": 1}).encode())) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one.two",
        "a.b.c.d",
        "a.\ud800.c",
        "a.ö.c",
        token(b""),
        token(b"[]"),
        token(b"{}"),
        token(b'{"sub":5}'),
        token(b'{"sub":"\\ud800"}'),
        token(b"[" * 6000),
        token(b'{"sub":"' + b"x" * 20_000 + b'"}'),
        token(b'{"sub":"a","n":' + b"9" * 9999 + b"}"),
    ],
)
def test_what_has_no_subject_gives_an_empty_text(text: str) -> None:
    assert subject(text) == ""


@given(st.binary(max_size=60).map(token) | st.text(max_size=40) | st.text(max_size=20).map(lambda text: f"a.{text}.c"))
def test_any_token_gives_a_text_that_can_be_encoded(text: str) -> None:
    found = subject(text)
    assert found.encode().decode() == found
