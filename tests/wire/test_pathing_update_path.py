# SPDX-License-Identifier: Apache-2.0
"""The recorded updatepath tables, row by row; generated ids are compared by their effect."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import END, Call, Element, Next, Runtime
from nsm_sdk.elements import UpdatePath
from nsm_sdk.errors import InvalidRequest
from tests.fixtures import rows
from tests.wire.deviations import DEVIATIONS

SECTIONS = (
    "updatepath_client_request",
    "updatepath_server_request",
    "updatepath_client_close",
    "updatepath_server_close",
)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Below(Element):
    """Answers as the row says, and keeps what it saw."""

    def __init__(self, answers: str) -> None:
        self.answers = answers
        self.saw: Connection | None = None

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self._keep(request.connection)
        conn = request.connection
        match self.answers:
            case "error 'next failed'":
                raise RuntimeError("next failed")
            case "the same without path":
                conn.ClearField("path")
            case "the same with only the first segment":
                del conn.path.path_segments[1:]
            case "the same with index raised by 1 and id 'changed-by-next'":
                conn.path.index += 1
                conn.id = "changed-by-next"
            case "the same with segments forwarder/remote-1 and nse/remote-2 appended":
                conn.path.path_segments.add(name="forwarder", id="remote-1")
                conn.path.path_segments.add(name="nse", id="remote-2")
            case _:
                assert self.answers.startswith("the same"), self.answers
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._keep(conn)

    def _keep(self, conn: Connection) -> None:
        self.saw = Connection()
        self.saw.CopyFrom(conn)


def shown(message: Connection | None, generated: list[str]) -> Any:
    """As a dictionary, with ids that were generated replaced by a mark."""
    if message is None:
        return None
    return _marked(MessageToDict(message), generated)


def _marked(value: Any, generated: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _marked(item, generated) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, generated) for item in value]
    return "generated" if isinstance(value, str) and value in generated else value


async def run(row: dict[str, Any]) -> None:
    name = str(row["case"])
    section = name.rsplit("-", 1)[0]
    below = Below(row.get("next_returns", "the same"))
    bound = UpdatePath(row["element_name"]).bind(below.bind(END))
    given = ParseDict(row["input"] or {}, Connection())
    known = set(UUID.findall(str(row["input"])))
    call = Call(Runtime("test"))
    output: Connection | None = None
    error: Exception | None = None
    try:
        if row["operation"] == "request":
            output = await bound.request(call, Request(connection=given))
        else:
            await bound.close(call, given)
    except (InvalidRequest, RuntimeError) as raised:
        error = raised
    generated = [found for found in UUID.findall(str(below.saw)) if found not in known]
    expected_error = row["error"] is not None
    differs = (
        (error is not None) != expected_error
        or shown(below.saw, generated) != _marked(row["passed_to_next"], row.get("generated_ids", []))
        or (
            row["operation"] == "request"
            and shown(output, generated) != _marked(row["output"], row.get("generated_ids", []))
        )
    )
    listed = ("pathing", section, name) in DEVIATIONS
    told = (row["text"], error, shown(below.saw, generated), row["passed_to_next"], shown(output, generated))
    assert differs == listed, told


@pytest.mark.parametrize("row", [row for section in SECTIONS for row in rows("pathing", section)])
def test_row(row: dict[str, Any]) -> None:
    asyncio.run(run(row))
