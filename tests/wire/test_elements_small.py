# SPDX-License-Identifier: Apache-2.0
"""Small elements answer like the Go programs'.

Does:  runs the recorded rows through our elements: what the next one sees, and what the caller gets.
Place: tables `elements` (passthrough, setextracontext, clienturl), `pathing` (trimpath_server) and `names`
       (clientinfo).
State: none.
"""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Element
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.connect import ClientUrl
from nsm_sdk.elements.labels import ClientInfo, SetExtraContext
from nsm_sdk.elements.passthrough import Passthrough
from nsm_sdk.elements.update_path import TrimPath
from nsm_sdk.testing import Answer, Probe, Rig, rig
from tests.fixtures import rows
from tests.wire.deviations import DEVIATIONS

Row = dict[str, Any]


def connection(row: Row | None) -> Connection:
    return json_format.ParseDict(row or {}, Connection())


def request(row: Row) -> Request:
    return json_format.ParseDict(row, Request())


async def answer_of(element: Element, asked: Request) -> tuple[Connection, Connection]:
    """What the caller gets, and what the next element saw."""
    probe = Probe()
    async with rig(Begin(), element, probe) as bench:
        answer = await bench.request(asked)
        return answer, probe.seen.calls[0].connection


@pytest.mark.parametrize("row", rows("elements", "setextracontext_server"))
async def test_set_extra_context(row: Row) -> None:
    answer, _ = await answer_of(SetExtraContext(row["set"] or {}), request(row["input"]))
    assert answer == connection(row["output"])


@pytest.mark.parametrize("row", rows("pathing", "trimpath_server"))
async def test_trim_path(row: Row) -> None:
    answer, below = await answer_of(TrimPath(), Request(connection=connection(row["input"])))
    assert answer == connection(row["output"])
    assert below == connection(row["passed_to_next"])


@pytest.mark.parametrize("row", rows("names", "clientinfo"))
async def test_client_info(row: Row) -> None:
    asked = Request(connection=Connection(id="id", labels=row["labels"]))
    _, below = await answer_of(ClientInfo(row["environment"]), asked)
    assert dict(below.labels) == row["output"]


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_client_url(side: str, number: int) -> None:
    name = f"clienturl_{side}-{number}"
    found = [param.values[0] for param in rows("elements", f"clienturl_{side}")]
    row = next((row for row in found if isinstance(row, dict) and row["case"] == name), None)
    if row is None:
        pytest.skip(f"no recording of {name} (set NSM_FIXTURES)")
    probe = Probe()
    async with rig(ClientUrl(row["element_url"]), probe) as bench:
        await bench.request(url=row["context_url"])
    deviates = ("elements", f"clienturl_{side}", name) in DEVIATIONS
    assert (probe.seen.calls[0].url == (row["next_sees"] or "")) != deviates


@pytest.mark.parametrize("row", rows("elements", "passthrough_client"))
async def test_passthrough(row: Row) -> None:
    answers = [operation.get("next_answers") for operation in row["operations"]]
    probe = Probe()

    def behind(asked: Request) -> Connection:
        return connection(answers.pop(0))

    async with rig(Begin(), Passthrough(row["labels"]), probe, Answer(behind)) as bench:
        for operation in row["operations"]:
            await _passthrough_step(bench, operation)
    passed = [call.message for call in probe.seen.calls]
    expected = [
        connection(operation["passed_to_next"])
        if operation.get("operation") == "close"
        else request(operation["passed_to_next"])
        for operation in row["operations"]
    ]
    assert passed == expected


async def _passthrough_step(bench: Rig, operation: Row) -> None:
    if operation.get("operation") == "close":
        await bench.close()
    else:
        assert await bench.request(request(operation["input"])) == connection(operation["output"])
