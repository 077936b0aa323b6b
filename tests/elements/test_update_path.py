# SPDX-License-Identifier: Apache-2.0
"""Ids along a path: who gets which, and who can find it again. The recorded tables are in tests/wire."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, PathSegment, Request
from nsm_sdk.api.tokens import TOKEN_KEY
from nsm_sdk.core import Peer
from nsm_sdk.elements import UpdatePath
from nsm_sdk.errors import InvalidRequest, NsmError
from nsm_sdk.testing import Lose, Probe, drive, rig, run_virtual, virtual_time

texts = st.text(min_size=1, max_size=8)


def token(subject: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"sub": subject}).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def from_client(name: str = "nsc", conn_id: str = "c1") -> Request:
    request = Request(connection=Connection(id=conn_id))
    request.connection.path.path_segments.append(PathSegment(name=name, id=conn_id))
    return request


async def derived(path: UpdatePath, request: Request, subject: str) -> str:
    driven = await drive(path, request=request, metadata={TOKEN_KEY: token(subject)}, check=False)
    seen = driven.seen.calls[0].connection
    assert driven.connection is not None
    assert driven.connection.id == request.connection.id, "the caller sees its own id"
    assert driven.connection.path.index == 0
    return seen.id


@given(texts, texts, texts)
def test_the_same_caller_finds_the_same_connection_and_nobody_else(name: str, conn_id: str, subject: str) -> None:
    async def run() -> None:
        path = UpdatePath("nsmgr-x", opens=False)
        if name == "nsmgr-x":
            return
        first = await derived(path, from_client(name, conn_id), subject)
        assert first == await derived(path, from_client(name, conn_id), subject)
        others = [
            await derived(path, from_client(name + "x", conn_id), subject),
            await derived(path, from_client(name, conn_id + "x"), subject),
            await derived(path, from_client(name, conn_id), subject + "x"),
            await derived(UpdatePath("nsmgr-x"), from_client(name, conn_id), subject),
        ]
        assert first not in others

    run_virtual(run)


@virtual_time
async def test_a_configured_secret_survives_a_restart() -> None:
    before = await derived(UpdatePath("nsmgr", secret="s"), from_client(), "a")
    assert before == await derived(UpdatePath("nsmgr", secret="s"), from_client(), "a")
    assert "hush" not in repr(UpdatePath("nsmgr", secret="hush"))


@virtual_time
async def test_a_close_after_a_lost_answer_finds_the_connection() -> None:
    probe = Probe()
    async with rig(UpdatePath("nsmgr", opens=False), probe, Lose(), check=False) as bench:
        with pytest.raises(NsmError):
            await bench.request(from_client())
        await bench.close(from_client().connection)
        assert probe.seen.of("request")[0].connection.id == probe.seen.of("close")[0].connection.id


@virtual_time
async def test_an_identity_that_the_transport_verified_counts_more_than_a_token() -> None:
    path = UpdatePath("nsmgr")
    ids = set()
    for identity in ("spiffe://a/one", "spiffe://a/two"):
        driven = await drive(
            path,
            request=from_client(),
            metadata={TOKEN_KEY: token("claimed")},
            peer=Peer(identity=identity),
            check=False,
        )
        ids.add(driven.seen.calls[0].connection.id)
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("index", "conn_id", "says"),
    [(0, "other", "is not that of its current path segment"), (7, "c1", "out of range"), (2**32 - 1, "c1", "range")],
)
@virtual_time
async def test_a_path_that_cannot_be_right_is_refused(index: int, conn_id: str, says: str) -> None:
    request = from_client()
    request.connection.id = conn_id
    request.connection.path.index = index
    probe = Probe()
    with pytest.raises(InvalidRequest, match=says) as caught:
        await drive(UpdatePath("nsmgr"), probe, request=request, check=False)
    assert caught.value.hop == "nsmgr"
    assert caught.value.hint
    assert not probe.seen.calls


@virtual_time
async def test_a_hop_where_no_path_begins_refuses_a_request_without_one() -> None:
    with pytest.raises(InvalidRequest, match="has no path"):
        await drive(UpdatePath("nsmgr", opens=False), request=Request(connection=Connection(id="c")), check=False)


@virtual_time
async def test_a_close_without_a_path_means_no_connection_of_this_hop() -> None:
    probe = Probe()
    async with rig(UpdatePath("nsmgr-x", opens=False), probe, check=False) as bench:
        await bench.close(Connection(id="c1"))
        assert not probe.seen.calls
        with pytest.raises(InvalidRequest, match="no path"):
            await bench.request(Request(connection=Connection(id="c1")))
