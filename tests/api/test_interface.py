# SPDX-License-Identifier: Apache-2.0
"""Interface names and random ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import check_interface_name, interface_name, nanoid
from nsm_sdk.errors import InvalidRequest, ProgrammingError


@pytest.mark.parametrize("name", ["a", "nsm-1", "x" * 15, "ö" * 7, "...", "svc@domain-WRlV", "-x"])
def test_names_that_linux_takes(name: str) -> None:
    check_interface_name(name)
    assert len(name.encode()) <= 15


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "empty"),
        ("x" * 16, "16 bytes, 1 too many"),
        ("ö" * 8, "16 bytes"),
        (".", "directory"),
        ("..", "directory"),
        ("a/b", "'/'"),
        ("a:b", "':'"),
        ("veth%d", "'%'"),
        ("a b", "' '"),
        ("a\n", "n'"),
        ("a\u00a0b", "xa0"),
        ("a\x00b", "x00"),
        ("\ud800", "ud800"),
    ],
)
def test_names_that_linux_refuses(name: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_interface_name(name)
    assert complaint in caught.value.message
    assert "15 bytes" in caught.value.hint


@given(st.text(max_size=30))
def test_made_names_are_taken_and_fill_the_length(service: str) -> None:
    name = interface_name(service)
    check_interface_name(name)
    assert len(name.encode()) == 15


def test_made_names_begin_with_the_service() -> None:
    assert interface_name("my-service").startswith("my-service-")
    assert interface_name("a b/c").startswith("a-b-c-")
    assert interface_name("a", random=bytes) == "a-0000000000000"


@given(st.integers(0, 40), st.text(min_size=2, max_size=256).filter(lambda text: len(text) > 1))
def test_ids_have_their_size_and_alphabet(size: int, alphabet: str) -> None:
    made = nanoid(size, alphabet=alphabet)
    assert len(made) == size
    assert set(made) <= set(alphabet)


@pytest.mark.parametrize("alphabet", ["ab", "abc", "0123456789"])
def test_every_letter_is_as_likely(alphabet: str) -> None:
    """Fed with every byte equally often, it gives every letter equally often."""
    feed = bytes(range(256))
    ratio = 1 << (len(alphabet) - 1).bit_length()
    size = 256 * len(alphabet) // ratio
    made = nanoid(size - size % len(alphabet), alphabet=alphabet, random=lambda _: feed)
    assert len({made.count(letter) for letter in alphabet}) == 1


def test_wrong_use_is_told() -> None:
    for size, alphabet in ((-1, "ab"), (1, "a"), (1, "x" * 257)):
        with pytest.raises(ProgrammingError):
            nanoid(size, alphabet=alphabet)
    with pytest.raises(ProgrammingError, match="exhausted"):
        nanoid(3, random=lambda _: b"")
