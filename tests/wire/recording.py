# SPDX-License-Identifier: Apache-2.0
"""Recorded registry calls, ready to be made again.

Does:  finds in a recording the calls that reached one hop, with decoded messages, metadata and times, and what was
       answered.
Place: replays of registry recordings.
State: none.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from nsm_sdk.api import METHODS, Method
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY
from tests.fixtures import load

_UNITS = {"u": 1e-6, "m": 1e-3, "S": 1.0, "n": 1e-9, "M": 60.0, "H": 3600.0}


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One call of a recording."""

    number: int
    client: str
    method: Method[Any, Any]
    at: float
    """Seconds since the recording began."""
    timeout: float
    metadata: dict[str, str]
    request: Any
    answers: list[Message] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    """gRPC status; None for a stream that was reset or ran on."""
    text: str = ""
    ended: float | None = None


def calls_to(name: str, hop: str) -> list[Recorded]:
    """The calls that `hop` got in recording `name`, in order."""
    found: dict[int, Recorded] = {}
    for event in load(name)["events"]:
        number = event.get("call")
        kind = event["kind"]
        at = event["t_ms"] / 1000
        if kind == "request-headers" and event["to"] == hop:
            headers = dict(event["headers"])
            timeout = headers.get("grpc-timeout")
            found[number] = Recorded(
                number=number,
                client=event["from"],
                method=METHODS[event["method"]],
                at=at,
                timeout=float(timeout[:-1]) * _UNITS[timeout[-1]] if timeout else float("inf"),
                metadata={key: headers[key] for key in ("path", TOKEN_KEY, EXPIRES_KEY) if key in headers},
                request=None,
            )
            continue
        call = found.get(number)
        if call is None:
            continue
        if kind == "request-message":
            call.request = call.method.request.FromString(base64.b64decode(event["bytes"]))
        elif kind == "response-message":
            call.answers.append(call.method.response.FromString(base64.b64decode(event["bytes"])))
        elif kind == "response-headers":
            call.headers = dict(event["headers"])
        elif kind.startswith("response-trailers"):
            call.status = event["status"]["code"]
            call.text = event["status"]["message"]
            call.ended = at
        elif kind == "reset":
            call.ended = at
    return [call for call in found.values() if call.request is not None]


def wall_of(call: Recorded, life: float) -> float:
    """Seconds since 1970 when the recording began, by a token that lived `life` seconds when it was made."""
    expires = datetime.fromisoformat(call.metadata[EXPIRES_KEY])
    return expires.timestamp() - life - call.at
