# SPDX-License-Identifier: Apache-2.0
"""Tokens and token elements answer like the Go programs'.

Does:  runs the recorded rows through our generator and our element.
Place: tables `tokens` (generator) and `pathing` (updatetoken_server).
State: none.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jwt
import pytest
from google.protobuf import json_format

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.path import seconds
from nsm_sdk.api.tokens import claims, parse_time
from nsm_sdk.errors import FailedPrecondition, NsmError
from nsm_sdk.security import Nobody, Source, Svid, TokenGenerator, UpdateToken
from nsm_sdk.testing import rig
from tests.fixtures import load, rows
from tests.security.certificates import issue
from tests.wire.deviations import DEVIATIONS

Row = dict[str, Any]
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def go_seconds(text: str) -> float:
    """A duration as Go prints it."""
    found = re.findall(r"([0-9.]+)([hms])", text)
    return (-1 if text.startswith("-") else 1) * math.fsum(float(number) * _UNITS[unit] for number, unit in found)


@pytest.mark.parametrize("row", rows("tokens", "generator"))
def test_generator(row: Row) -> None:
    svids = load("tokens")["svids"]

    def ends(name: str) -> float:
        return seconds(parse_time(svids[name]["not_after"]))

    source: Source = Nobody()
    if own := row["own_svid"]:
        source = Svid(*issue(svids[own]["spiffe_id"], not_after=ends(own)))
    # Information about a peer without a certificate that is looked at names nobody.
    peer = row["peer"] if row["peer"] in svids else ""
    generated = seconds(parse_time(row["generated_at"]))
    tokens = TokenGenerator(source, max_lifetime=go_seconds(row["max_lifetime"]), wall=lambda: generated)
    asked = svids[peer]["spiffe_id"] if peer else ""
    if row["error"]:
        with pytest.raises(FailedPrecondition):
            tokens.token(asked)
        return
    token, expires = tokens.token(asked, peer_not_after=ends(peer) if peer else math.inf)
    assert jwt.get_unverified_header(token) == row["header"]
    assert expires == pytest.approx(seconds(parse_time(row["returned_expiry"])), abs=1e-4)
    said = jwt.decode(token, options={"verify_signature": False, "verify_exp": False})
    same = said == row["claims"]
    assert same != (("tokens", "generator", row["case"]) in DEVIATIONS), said
    if not same:
        assert said == {**row["claims"], "exp": math.floor(expires)}


@pytest.mark.parametrize("row", rows("tokens", "generator"))
def test_reading_a_recorded_token(row: Row) -> None:
    if row["error"]:
        pytest.skip("the row has no token")
    said = claims(row["token"])
    assert said.subject == row["claims"]["sub"]
    assert list(said.audience) == row["claims"].get("aud", [])
    assert said.expires == row["claims"]["exp"]


class Recorded:
    """A source that answers what the row says."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def token(self, peer: str) -> tuple[str, float]:
        if error := self._row.get("token_generator_error"):
            raise FailedPrecondition(error)
        return self._row["own_token"], seconds(parse_time(self._row["own_token_expires"]))


@pytest.mark.parametrize("row", rows("pathing", "updatetoken_server"))
async def test_update_token(row: Row) -> None:
    conn = json_format.ParseDict(row["input"] or {}, Connection())
    sent = {key: ", ".join(values) for key, values in (row["metadata"] or {}).items()}
    deviates = ("pathing", "updatetoken_server", row["case"]) in DEVIATIONS
    failed = False
    async with rig(UpdateToken(Recorded(row)), check=False) as bench:
        try:
            if row["operation"] == "request":
                answer = await bench.request(Request(connection=conn), metadata=sent)
                assert answer == json_format.ParseDict(row["output"] or {}, Connection())
            else:
                await bench.close(conn, metadata=sent)
        except NsmError:
            failed = True
        passed = [call.connection for call in bench.seen.calls]
    assert (failed == bool(row["error"])) != deviates
    if row["passed_to_next"]:
        assert passed == [json_format.ParseDict(row["passed_to_next"], Connection())]
    else:
        assert len(passed) == (1 if deviates else 0)
