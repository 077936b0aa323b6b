# SPDX-License-Identifier: Apache-2.0
"""Every message of every wire recording decodes, says what the recording says, and encodes to an equal message."""

from __future__ import annotations

import base64

import pytest
from google.protobuf import json_format

from nsm_sdk.api import METHODS, Connection, Snapshot
from tests.fixtures import ROOT, load, needs_fixtures

pytestmark = needs_fixtures

MESSAGES = ("request-message", "response-message")


def recordings() -> list[str]:
    """Names of the files that hold events."""
    return [path.stem for path in sorted(ROOT.glob("*.json")) if "events" in load(path.stem)]


@pytest.mark.parametrize("name", recordings())
def test_every_message_survives(name: str) -> None:
    recording = load(name)
    methods = {call["call"]: call["method"] for call in recording["calls"]}
    seen = 0
    for event in recording["events"]:
        if event["kind"] not in MESSAGES:
            continue
        method = METHODS[methods[event["call"]]]
        kind = method.request if event["kind"] == "request-message" else method.response
        assert kind.DESCRIPTOR.full_name == event["type"]
        decoded = kind.FromString(base64.b64decode(event["bytes"]))
        assert decoded == json_format.ParseDict(event["json"], kind())
        assert json_format.MessageToDict(decoded) == event["json"]
        again = decoded.SerializeToString(deterministic=True)
        assert kind.FromString(again) == decoded
        if isinstance(decoded, Connection):
            assert Snapshot.of(decoded).connection() == decoded
        seen += 1
    assert seen > 0
