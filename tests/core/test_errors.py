# SPDX-License-Identifier: Apache-2.0
"""The exception tree, and its way through a gRPC status and back."""

from __future__ import annotations

import copy
import inspect
import pickle

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nsm_sdk import errors
from nsm_sdk.errors import (
    ChainOrderError,
    Internal,
    NoCandidate,
    NsmError,
    ProgrammingError,
    ServingTwice,
    Status,
    Unavailable,
    from_status,
)

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, NsmError)]


def test_there_is_one_tree_and_its_picture_is_complete() -> None:
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert kind.__name__ in errors.__doc__, kind


def test_every_status_but_two_has_an_error_of_its_own() -> None:
    for status in Status:
        kind = type(from_status(status, "text"))
        if status in (Status.OK, Status.UNKNOWN):
            assert kind is NsmError
        else:
            assert kind is not NsmError
            assert kind.default_status is status


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_round_trip_through_status_and_text(kind: type[NsmError]) -> None:
    error = kind("what happened", hint="what to do", hop="nsmgr-1", element="Connect.request", trail=("nsmgr-1",))
    back = from_status(int(error.status), error.message, trail=error.trail, hop=error.hop, element=error.element)
    assert back.status is error.status
    assert (back.message, back.trail, back.hop, back.element) == (
        "what happened",
        ("nsmgr-1",),
        "nsmgr-1",
        "Connect.request",
    )
    # A peer learns the status; what is finer than that stays here.
    assert issubclass(kind, type(back)) or kind in (ProgrammingError, ChainOrderError, ServingTwice)


@given(status=st.integers(-10, 1000), text=st.text())
def test_whatever_a_peer_sends_becomes_an_error(status: int, text: str) -> None:
    error = from_status(status, text)
    assert error.message == text
    assert error.status == (status if 0 <= status <= 16 else Status.UNKNOWN)
    assert text in str(error)


def test_how_an_error_reads() -> None:
    assert str(Unavailable("gone")) == "gone"
    assert str(Unavailable("gone", hop="nsmgr")) == "gone (in nsmgr)"
    assert str(Unavailable("gone", element="Connect.request")) == "gone (in Connect.request)"
    assert (
        str(Unavailable("gone", hint="try again", hop="nsmgr", element="Connect.request"))
        == "gone (in nsmgr / Connect.request); try again"
    )


def test_a_given_status_wins() -> None:
    error = NsmError("odd", status=Status.DATA_LOSS)
    assert error.status is Status.DATA_LOSS
    assert NsmError("odd").status is Status.UNKNOWN
    assert issubclass(NoCandidate, Unavailable)
    assert NoCandidate("none").status is Status.UNAVAILABLE
    assert not issubclass(ProgrammingError, Internal)


def test_copies_keep_what_was_filled_in() -> None:
    error = Unavailable("gone", hint="try again", trail=("a", "b"))
    error.hop = "nsmgr"
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(copied) is Unavailable
        assert vars(copied) == vars(error)
        assert str(copied) == str(error)
