# SPDX-License-Identifier: Apache-2.0
"""Tunnel addresses are swapped like the Go programs swap them.

Does:  runs the recorded rows; a parameter that is empty counts as absent.
Place: table `elements` (swapip_client, swapip_server).
State: none.
"""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Element
from nsm_sdk.elements.swap_ip import SwapDestinationIp, SwapSourceIp
from nsm_sdk.testing import Answer, Probe, rig
from tests.fixtures import rows
from tests.wire.deviations import DEVIATIONS

Row = dict[str, Any]


def tidy(mechanism: Mechanism) -> None:
    for key in [key for key, value in mechanism.parameters.items() if not value]:
        del mechanism.parameters[key]


def connection(row: Row) -> Connection:
    conn = json_format.ParseDict(row, Connection())
    if conn.HasField("mechanism"):
        tidy(conn.mechanism)
    return conn


def request(row: Row) -> Request:
    asked = json_format.ParseDict(row, Request())
    for mechanism in asked.mechanism_preferences:
        tidy(mechanism)
    asked.connection.CopyFrom(connection(row["connection"]))
    return asked


async def check(element: Element, section: str, row: Row) -> None:
    probe = Probe()

    def behind(asked: Request) -> Connection:
        return connection(row["next_answers"])

    async with rig(element, probe, Answer(behind)) as bench:
        answer = await bench.request(request(row["input"]))
        await bench.close()
    passed = probe.seen.of("request")[0].message
    same = passed == request(row["passed_to_next"]) and answer == connection(row["output"])
    assert same != (("elements", section, row["case"]) in DEVIATIONS), (passed, answer)
    # Where we differ, an address that is not in the map has stayed.
    shown = f"{passed}{answer}"
    known = row["internal_to_external"]
    assert same or any(address in shown for address in ("10.0.0.1", "10.0.0.2", "10.0.0.77") if address not in known)
    assert probe.seen.closes == 1


@pytest.mark.parametrize("row", rows("elements", "swapip_client"))
async def test_source(row: Row) -> None:
    await check(SwapSourceIp(row["internal_to_external"]), "swapip_client", row)


@pytest.mark.parametrize("row", rows("elements", "swapip_server"))
async def test_destination(row: Row) -> None:
    await check(SwapDestinationIp(row["internal_to_external"]), "swapip_server", row)
