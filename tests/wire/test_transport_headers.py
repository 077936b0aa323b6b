# SPDX-License-Identifier: Apache-2.0
"""What our calls carry beside the messages, against what the Go programs were recorded to carry.

Does:  names and forms of metadata, paths of methods, texts of errors.
Place: tests/wire.
State: none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsm_sdk.api import METHODS, Connection, Request
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY, format_time
from nsm_sdk.core import Call
from nsm_sdk.errors import NsmError, from_status
from nsm_sdk.transport import PATH_KEY
from nsm_sdk.transport.metadata import checked
from nsm_sdk.transport.status import clean
from tests.fixtures import load, needs_fixtures
from tests.transport.adapters import dialing, every_adapter, pair

RECORDINGS = ("local-request-close", "remote", "interdomain", "registry-nse", "registry-via-nsmgr", "errors", "monitor")

pytestmark = needs_fixtures


def events(name: str, kind: str) -> Iterator[dict[str, Any]]:
    for event in load(name)["events"]:
        if event["kind"] == kind:
            yield event


def metadata(event: dict[str, Any]) -> dict[str, str]:
    """The headers that are neither HTTP's nor gRPC's own."""
    own = {"content-type", "user-agent", "te", "grpctracing"}
    return {
        key: value
        for key, value in event["headers"]
        if key[0] != ":" and not key.startswith("grpc-") and key not in own
    }


@pytest.mark.parametrize("name", RECORDINGS)
def test_calls_carry_no_metadata_that_we_do_not_know(name: str) -> None:
    found = list(events(name, "request-headers"))
    assert found
    for event in found:
        assert set(metadata(event)) <= {TOKEN_KEY, EXPIRES_KEY, PATH_KEY}
        assert event["method"] in METHODS


# In "registry-nse" a plain stub sends the path with other calls as well, to see what happens.
@pytest.mark.parametrize("name", [name for name in RECORDINGS if name != "registry-nse"])
def test_the_registrys_path_goes_with_register_and_unregister_only(name: str) -> None:
    for event in events(name, "request-headers"):
        if PATH_KEY in metadata(event):
            assert event["method"].rpartition("/")[2] in ("Register", "Unregister")
    for event in events(name, "response-headers"):
        assert set(metadata(event)) <= {PATH_KEY}


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_header_could_be_sent_by_us(name: str) -> None:
    for kind in ("request-headers", "response-headers"):
        for event in events(name, kind):
            sent = metadata(event)
            assert dict(checked(sent)) == sent


def test_times_look_like_the_recorded_ones() -> None:
    form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z")
    recorded = [metadata(event)[EXPIRES_KEY] for event in events("local-request-close", "request-headers")]
    assert recorded
    assert all(form.fullmatch(text) for text in recorded)
    assert form.fullmatch(format_time(1_795_471_453.633835))


class Recorded:
    """A caller with the token of a recording."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self, peer: str) -> tuple[str, float]:
        return self._token, 1_795_471_453.633835


@every_adapter
async def test_our_calls_carry_what_the_recorded_ones_carry(adapter: str, tmp_path: Path) -> None:
    recorded = metadata(
        next(
            event
            for event in events("local-request-close", "request-headers")
            if event["method"].endswith("Registry/Register")
        )
    )
    seen: dict[str, str] = {}

    async def do(call: Call, request: Request) -> None:
        seen.update(call.metadata)

    async with pair(adapter, tmp_path, do, dialer=dialing(adapter, Recorded(recorded[TOKEN_KEY]))) as p:
        await p.request(onward={PATH_KEY: recorded[PATH_KEY]})
    seen.pop("user-agent", None)
    assert set(seen) == set(recorded)
    assert seen[TOKEN_KEY] == recorded[TOKEN_KEY]
    assert seen[PATH_KEY] == recorded[PATH_KEY]
    assert seen[EXPIRES_KEY][:26] == recorded[EXPIRES_KEY][:26]


def failures() -> list[dict[str, Any]]:
    """Different statuses that were recorded."""
    try:
        found = [
            event["status"]
            for kind in ("response-trailers", "response-trailers-only")
            for event in events("errors", kind)
            if event["status"]["code"]
        ]
    except pytest.skip.Exception:
        return []
    return list({(status["code"], status["message"]): status for status in found}.values())


@every_adapter
async def test_recorded_errors_arrive_word_for_word(adapter: str, tmp_path: Path) -> None:
    statuses = failures()
    assert statuses
    turn = iter(statuses)

    async def do(call: Call, request: Request) -> Connection:
        status = next(turn)
        raise from_status(status["code"], status["message"])

    async with pair(adapter, tmp_path, do) as p:
        for status in statuses:
            with pytest.raises(NsmError) as caught:
                await p.request()
            # Some of them print a whole connection with its tokens: those do not travel.
            assert (caught.value.status, caught.value.message) == (status["code"], clean(status["message"]))
