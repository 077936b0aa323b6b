# SPDX-License-Identifier: Apache-2.0
"""Tables of the Go registry elements, row by row.

Does:  pathing.json (path of tokens, expiry, refresh) and elements.json (payload, registration time, addresses, local
       bypass).
Place: tests of the elements of `nsm_sdk.registry`.
State: none.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint, seconds
from nsm_sdk.api.path import timestamp
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY
from nsm_sdk.core import NSE, Call, Chain, RegistryElement, RegistryNext, Role, registry_end
from nsm_sdk.errors import NsmError, Unavailable
from nsm_sdk.registry import Begin, DefaultPayload, Expire, LocalBypass, RegistrationTime, SwapIP, UpdatePath
from nsm_sdk.registry.expire import bounds, limit, unregister_after
from nsm_sdk.registry.keep_alive import refresh_after
from nsm_sdk.registry.path import PATH_KEY, AuthPath
from nsm_sdk.testing import RegistryProbe, current_clock, virtual_time
from tests.fixtures import load, rows
from tests.wire.deviations import DEVIATIONS


def check(file: str, section: str, row: dict[str, Any], ours: object, theirs: object) -> None:
    """The row's answer, unless we differ on purpose, and then a different one."""
    assert (ours == theirs) is ((file, section, row["case"]) not in DEVIATIONS), (row.get("text"), ours, theirs)


def go_duration(text: str | None) -> float | None:
    """Seconds of a Go duration, such as "1m30s" or "-5s"."""
    if text is None:
        return None
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    total = sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s|µs|ns)", text))
    return -total if text.startswith("-") else total


def jwt(**claims: object) -> str:
    """An unsigned token that says `claims`."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}."


class Tokens:
    """Our own token, always the same."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def token(self, peer: str) -> tuple[str, float]:
        if self._token is None:
            raise Unavailable("no svid")
        return self._token, 0.0


def _own_token(row: dict[str, Any]) -> str | None:
    text = row["text"]
    if "generator fails" in text:
        return None
    if "own token without sub" in text:
        return "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.e30."
    if "own token is not a JWT" in text:
        return "garbage"
    return str(load("pathing")["notes"]["registry_updatepath own token"])


@pytest.mark.parametrize("row", rows("pathing", "registry_updatepath_server"))
async def test_the_path_of_tokens(row: dict[str, Any]) -> None:
    metadata = {TOKEN_KEY: row["peer_token"]} if row["peer_token"] else {}
    if row["input_path"] is not None:
        metadata[PATH_KEY] = json.dumps(row["input_path"])
    probe: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    role = Role("r", nse=Chain("r", UpdatePath(Tokens(_own_token(row))), probe))
    entry = NetworkServiceEndpoint(name="nse", path_ids=row["input_path_ids"] or ())
    async with role.serving() as running:
        assert running.bound.nse is not None
        call = running.call(metadata=metadata)
        failed = False
        output = None
        try:
            if row["operation"] == "register":
                output = MessageToDict(await running.bound.nse.register(call, entry))
            else:
                await running.bound.nse.unregister(call, entry)
        except NsmError:
            failed = True
    seen = probe.seen.of(row["operation"])
    ours = {
        "error": failed,
        "output": output,
        "path_after": None if failed else json.loads(call.answer.get(PATH_KEY, "null")),
        "path_seen_by_next": json.loads(call.onward[PATH_KEY]) if seen else None,
        "path_ids_seen_by_next": list(seen[0].message.path_ids) if seen else None,
    }
    theirs = {key: row[key] for key in ours} | {"error": row["error"] is not None}
    if failed:
        theirs["path_after"] = None  # not observable: an error has no headers
    check("pathing", "registry_updatepath_server", row, ours, theirs)


class _Answers(RegistryElement[NetworkServiceEndpoint]):
    """Answers with another expiry, and notes the one it was sent."""

    def __init__(self, at: float | None) -> None:
        self._at = at
        self.sent: float | None = None

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        self.sent = seconds(entry.expiration_time) if entry.HasField("expiration_time") else None
        if self._at is not None:
            entry.expiration_time.CopyFrom(timestamp(self._at))
        return await next.register(call, entry)


@pytest.mark.parametrize("row", rows("pathing", "registry_expire_server"))
@virtual_time
async def test_expiry(row: dict[str, Any]) -> None:
    longest = go_duration(row["default_expiration"])
    below_says = go_duration(row["next_answers_expiration_minus_now"])
    async with Role("r").serving(clock=current_clock()) as running:
        now = running.runtime.clock.wall()
        below = _Answers(None if below_says is None else now + below_says)
        probe: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
        bound = Chain("r", Begin(NSE), Expire(longest), probe, below).bind(registry_end())
        metadata = {}
        onward = {}
        if (peer := go_duration(row["peer_token_expires_minus_now"])) is not None:
            at = timestamp(now + peer).ToJsonString()
            metadata = {TOKEN_KEY: jwt(sub="spiffe://a/peer"), EXPIRES_KEY: at}
        if (own := go_duration(row["own_token_expires_minus_now"])) is not None:
            onward = {PATH_KEY: AuthPath(1, ("", jwt(exp=now + own))).dumps()}
        entry = NetworkServiceEndpoint(name="nse")
        if (asked := go_duration(row["request_expiration_minus_now"])) is not None:
            entry.expiration_time.CopyFrom(timestamp(now + asked))
        timeout = go_duration(row["request_deadline_minus_now"]) or float("inf")
        before = len(running.runtime.timers)
        answer = await bound.register(running.call(timeout=timeout, metadata=metadata, onward=onward), entry)
        timers = len(running.runtime.timers) - before
        started = running.runtime.clock.now()
        while len(running.runtime.timers) > before:
            await _next_timer()
        fired = [{"ns": round((running.runtime.clock.now() - started) * 1e9)}] if timers else []
    ours = {
        "passed_to_next": below.sent and round(below.sent - now, 3),
        "output": answer.HasField("expiration_time") and round(seconds(answer.expiration_time) - now, 3),
        "unregister_after": fired,
    }
    theirs = {
        "passed_to_next": go_duration(row["passed_to_next_expiration_minus_now"]),
        "output": go_duration(row["output_expiration_minus_now"]) or False,
        "unregister_after": [{"ns": one["ns"]} for one in row["unregister_after"]],
    }
    check("pathing", "registry_expire_server", row, ours, theirs)


async def _next_timer() -> None:
    """Half a virtual second."""
    await asyncio.sleep(0.5)


@pytest.mark.parametrize("row", rows("pathing", "registry_refresh_client"))
def test_when_a_registration_is_refreshed(row: dict[str, Any]) -> None:
    left = go_duration(row["response_expiration_minus_now"])
    ours = [] if left is None else [round(refresh_after(left), 6)]
    check("pathing", "registry_refresh_client", row, ours, [round(one["ns"] / 1e9, 6) for one in row["refresh_after"]])


@pytest.mark.parametrize("row", rows("elements", "setpayload_server"))
async def test_a_default_payload(row: dict[str, Any]) -> None:
    role = Role("r", ns=Chain("r", DefaultPayload()))
    async with role.serving() as running:
        assert running.bound.ns is not None
        answer = await running.bound.ns.register(running.call(), NetworkService(name="s", payload=row["payload"]))
    check("elements", "setpayload_server", row, answer.payload, row["output"])


@pytest.mark.parametrize("row", rows("elements", "setregistrationtime_server"))
@virtual_time
async def test_the_time_of_registration(row: dict[str, Any]) -> None:
    role = Role("r", nse=Chain("r", Begin(NSE), RegistrationTime()))
    ours: list[str] = []
    async with role.serving(clock=current_clock()) as running:
        nse = running.bound.nse
        assert nse is not None
        for operation in row["operations"]:
            await _next_timer()
            if operation.get("text") == "after an unregistration":
                await nse.unregister(running.call(), NetworkServiceEndpoint(name="nse"))
            entry = NetworkServiceEndpoint(name="nse")
            if operation["sent"]:
                ParseDict(operation["sent"], entry.initial_registration_time)
            answer = await nse.register(running.call(), entry)
            ours.append(answer.initial_registration_time.ToJsonString())
    theirs = [operation["output"] for operation in row["operations"]]
    check(
        "elements",
        "setregistrationtime_server",
        row,
        [ours.index(one) for one in ours],
        [theirs.index(one) for one in theirs],
    )


@pytest.mark.parametrize("row", rows("elements", "registry_swapip_server"))
async def test_swapped_addresses(row: dict[str, Any]) -> None:
    probe: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    role = Role("r", nse=Chain("r", SwapIP(row["map"]), probe))
    async with role.serving() as running:
        assert running.bound.nse is not None
        answer = await running.bound.nse.register(running.call(), NetworkServiceEndpoint(name="e", url=row["url"]))
    ours = (probe.seen.of("register")[0].message.url, answer.url)
    check("elements", "registry_swapip_server", row, ours, (row["next_sees"], row["output"]))


@pytest.mark.parametrize("row", rows("elements", "localbypass_server"))
async def test_local_bypass(row: dict[str, Any]) -> None:
    probe: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    role = Role("r", nse=Chain("r", Begin(NSE), LocalBypass(row["nsmgr_url"]), probe))
    output = ""
    error = None
    async with role.serving() as running:
        assert running.bound.nse is not None
        try:
            answer = await running.bound.nse.register(running.call(), NetworkServiceEndpoint(name="e", url=row["url"]))
            output = answer.url
        except NsmError as raised:
            error = {"text": raised.message}
    passed = probe.seen.of("register")
    ours = (error, passed[0].message.url if passed else "", output)
    check("elements", "localbypass_server", row, ours, (row["error"], row["next_sees"], row["output"]))


def test_the_arithmetic_of_expiry() -> None:
    assert unregister_after(60, 15) == 45
    assert unregister_after(60, 15.1) == 54
    assert unregister_after(60, float("inf")) == 60
    assert unregister_after(-5, 15) > 0
    assert limit(100, None, []) is None
    assert limit(100, 60, [130.0]) == 130
    assert limit(100, 60, [50.0]) == 101


async def test_garbage_bounds_nothing() -> None:
    async with Role("r").serving() as running:
        call = running.call(metadata={TOKEN_KEY: "x", EXPIRES_KEY: "tomorrow"}, onward={PATH_KEY: "[]"})
        assert bounds(call) == []
