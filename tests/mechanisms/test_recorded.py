# SPDX-License-Identifier: Apache-2.0
"""Mechanism elements answer like the Go programs' elements.

Does:  runs the recorded inputs of the tables through ours and compares every message.
Place: tables `mechanisms` (kernel_client, kernel_server) and `elements` (mechanismpriority, mechanismtranslation).
State: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Call, Chain, Next
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.mechanisms import (
    Join,
    KernelClient,
    KernelServer,
    MechanismPriority,
    SimulatedDatapath,
    TranslateMechanism,
)
from nsm_sdk.testing import Probe, rig, virtual_time
from tests.fixtures import rows
from tests.wire.deviations import DEVIATIONS

Row = dict[str, Any]
THREAD_SELF = "file:///proc/thread-self/ns/net"


def asdict(message: Any) -> Row:
    found: Row = MessageToDict(message)
    return found


@pytest.mark.parametrize("row", rows("mechanisms", "kernel_client"))
@virtual_time
async def test_kernel_client(row: Row) -> None:
    below = Probe()
    element = KernelClient(namespace=THREAD_SELF, name=lambda service: f"gen-{service}"[:15])
    request = ParseDict(row["input"], Request())
    async with rig(Chain("client", element, below)) as bench:
        if ("mechanisms", "kernel_client", row["case"]) in DEVIATIONS:
            with pytest.raises(InvalidRequest):
                await bench.request(request)
            return
        await bench.request(request)
        await bench.close(request.connection)
    assert asdict(below.seen.calls[0].message) == row["request_after"]


@pytest.mark.parametrize("row", rows("mechanisms", "kernel_server"))
@virtual_time
async def test_kernel_server(row: Row) -> None:
    element = KernelServer(namespace=THREAD_SELF, name=lambda service: f"gen-{service}"[:15])
    request = Request(connection=ParseDict(row["input"]["connection"], Connection()))
    async with rig(Chain("server", element)) as bench:
        answer = await bench.request(request)
        assert asdict(answer) == row["output"]
        await bench.close(answer)


@pytest.mark.parametrize("row", rows("elements", "mechanismpriority_client"))
@virtual_time
async def test_mechanismpriority_client(row: Row) -> None:
    below = Probe()
    request = Request()
    for position, kind in enumerate(row["preferences"] or ()):
        request.mechanism_preferences.append(Mechanism(type=kind, parameters={"at": str(position)}))
    async with rig(MechanismPriority(*(row["priorities"] or ())), below) as bench:
        await bench.request(request)
    after = below.seen.calls[0].message.mechanism_preferences
    assert [f"{one.type}#{one.parameters['at']}" for one in after] == row["output"]


class Answers(Probe):
    """Answers what the recorded next element answered."""

    def __init__(self, operations: list[Row]) -> None:
        super().__init__()
        self.answers = iter([one["next_answers"] for one in operations if "next_answers" in one])

    async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
        return ParseDict(next_answer, Connection()) if (next_answer := self._next()) else request.connection

    def _next(self) -> Row | None:
        return next(self.answers, None)


class Tunnels(SimulatedDatapath):
    """Joins kernel interfaces with tunnels."""

    def offered(self, conn: Connection) -> Sequence[Mechanism]:
        return (Mechanism(type="VXLAN"),)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("row", rows("elements", "mechanismtranslation_client"))
@virtual_time
async def test_mechanismtranslation_client(row: Row, joined: bool) -> None:
    below = Answers(row["operations"])
    async with rig(Join(Tunnels()) if joined else TranslateMechanism(), below) as bench:
        for number, step in enumerate(row["operations"]):
            if closing := step.get("operation") == "close":
                await bench.close()
            else:
                answer = await bench.request(ParseDict(step["input"], Request()))
                assert asdict(answer) == step["output"]
            passed = asdict(below.seen.calls[number].message)
            if joined and not closing:
                # Recorded of the element alone; others there made the offer.
                assert passed.pop("mechanismPreferences") == [{"type": "VXLAN"}]
            assert passed == step["passed_to_next"]
        assert not await bench.left()
