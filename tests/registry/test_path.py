# SPDX-License-Identifier: Apache-2.0
"""The path of tokens: any text is read without an exception, what is written is read again.

Does:  hypothesis over paths and texts; what a path does on its way through three hops.
Place: tests of `nsm_sdk.registry.path` and `update_path`.
State: none.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import Chain, Query, Role, find_all
from nsm_sdk.errors import Internal, InvalidRequest, NsmError, Unavailable
from nsm_sdk.registry import AuthPath, LocalBypass, UpdatePath, parse_path
from nsm_sdk.registry.path import NO_PATH, PATH_KEY
from nsm_sdk.testing import Entries, RegistryProbe, bind_registry
from tests.registry.chains import Tokens
from tests.registry.test_store import nse

_KEYS = ("Index", "index", "PathSegments", "pathsegments", "token", "Token", "other")
PATHS = st.builds(AuthPath, st.integers(0, 5), st.lists(st.text(max_size=8), max_size=5).map(tuple))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3),
    max_leaves=8,
)


@given(PATHS)
def test_what_is_written_is_read_again(path: AuthPath) -> None:
    assert parse_path(path.dumps()) == path


@given(st.text(max_size=50) | JSON.map(json.dumps))
def test_any_text_is_a_path_or_none(text: str) -> None:
    found = parse_path(text)
    assert found is None or parse_path(found.dumps()) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"Index":-1}',
        '{"Index":4294967296}',
        '{"Index":1.0}',
        '{"Index":true}',
        '{"PathSegments":{}}',
        '{"PathSegments":[1]}',
        '{"PathSegments":[{"token":1}]}',
        '{"PathSegments":[' + ",".join(["{}"] * 300) + "]}",
        "[" * 100_000,
        " " * (1 << 21),
    ],
)
def test_bad_paths(text: str) -> None:
    assert parse_path(text) is None


def test_paths_as_go_writes_them() -> None:
    assert parse_path(None) is None
    assert parse_path("{}") == parse_path(NO_PATH) == AuthPath()
    assert NO_PATH == '{"Index":0,"PathSegments":null}'
    assert parse_path('{"index":1,"pathSegments":[{"Token":"a"},null]}') == AuthPath(1, ("a", ""))


@given(PATHS, st.text(max_size=4), st.text(max_size=4))
def test_a_step_on(path: AuthPath, peer: str, own: str) -> None:
    if path.tokens and path.index >= len(path.tokens):
        with pytest.raises(InvalidRequest):
            path.moved(peer, own)
        return
    moved = path.moved(peer, own)
    assert moved.tokens[moved.index - 1 : moved.index + 1] == (peer, own)
    assert moved.index == (path.index + 1 if path.tokens else 1)
    assert len(moved.tokens) >= len(path.tokens)


async def test_our_own_token_must_say_who_we_are() -> None:
    class Broken:
        def __init__(self, token: str | Exception) -> None:
            self._token = token

        def token(self, peer: str) -> tuple[str, float]:
            if isinstance(self._token, Exception):
                raise self._token
            return self._token, 0.0

    secret = "the key is kept in /secret"
    cases: list[tuple[str | Exception, type[NsmError]]] = [
        ("garbage", Internal),
        (OSError(secret), Unavailable),
        (Unavailable("no svid"), Unavailable),
    ]
    for token, expected in cases:
        probe: RegistryProbe[NetworkService] = RegistryProbe()
        async with Role("r", ns=Chain("r", UpdatePath(Broken(token)), probe)).serving() as running:
            ns: Any = running.bound.ns
            for verb in (ns.register, ns.unregister):
                with pytest.raises(expected) as raised:
                    await verb(running.call(), NetworkService(name="svc"))
                assert secret not in str(raised.value)
        assert probe.seen.calls == []


async def test_the_answer_of_the_next_hop_completes_the_path() -> None:
    class Further(RegistryProbe[NetworkServiceEndpoint]):
        async def register(self, call: Any, entry: Any, next: Any) -> Any:
            call.answered = {PATH_KEY: AuthPath(1, ("1", "2", "3")).dumps()}
            return await super().register(call, entry, next)

    async with Role("r", nse=Chain("r", UpdatePath(Tokens("spiffe://a/b")), Further())).serving() as running:
        bound: Any = running.bound.nse
        call = running.call(metadata={PATH_KEY: NO_PATH})
        await bound.register(call, nse("a"))
        assert parse_path(call.answer[PATH_KEY]) == AuthPath(0, ("1", "2", "3"))


async def test_endpoints_that_claim_to_live_here_are_not_shown() -> None:
    entries = Entries(nse("gone", url="tcp://here:1"), nse("elsewhere", url="tcp://there:1"))
    bypass = LocalBypass("tcp://here:1")
    # Alone, without the Begin that its registrations need.
    bound = bypass.bind(bind_registry(entries))
    async with Role("r").serving() as running:
        found = await find_all(bound, running.call(), Query(NetworkServiceEndpoint()))
        assert [one.name for one in found] == ["elsewhere"]
        await bound.unregister(running.call(), nse("gone"))
        assert entries.names == ["elsewhere", "gone"], "another manager may have it by now"
