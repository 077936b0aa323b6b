# SPDX-License-Identifier: Apache-2.0
"""The prefix service gives the answers that were on the wire.

Does:  replays every stream of the recording against one supply, in the recorded order, and compares every message and
       how each stream ended.
Place: recording `vl3-ipam-wire`.
State: none.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

from nsm_sdk.api import PrefixRequest, PrefixResponse
from nsm_sdk.errors import NsmError, Status
from nsm_sdk.ipam import PrefixSupply, manage_prefixes
from tests.fixtures import load
from tests.wire.deviations import DEVIATIONS

_DELETE = 2


class Stream:
    """One stream: what goes in, and a task that collects what comes out and how it ends."""

    def __init__(self, supply: PrefixSupply) -> None:
        self.sent: asyncio.Queue[PrefixRequest | None] = asyncio.Queue()
        self.answers: asyncio.Queue[PrefixResponse] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(supply))

    async def _requests(self) -> AsyncIterator[PrefixRequest]:
        while (request := await self.sent.get()) is not None:
            yield request
            self.sent.task_done()

    async def _run(self, supply: PrefixSupply) -> None:
        answers = manage_prefixes(supply, self._requests())
        try:
            async for answer in answers:
                self.answers.put_nowait(answer)
        finally:
            await answers.aclose()

    async def end(self) -> tuple[Status, str]:
        """Wait until the stream ends; its status and text."""
        try:
            await self.task
        except NsmError as error:
            return error.status, error.message
        return Status.OK, ""


async def test_the_recorded_streams() -> None:
    recording = load("vl3-ipam-wire")
    supply = PrefixSupply("172.16.0.0/22", length=24)
    streams: dict[int, Stream] = {}
    endings: dict[int, tuple[Status, str]] = {}
    compared = 0
    for event in recording["events"]:
        kind, call = event["kind"], event.get("call", 0)
        if kind == "request-headers":
            streams[call] = Stream(supply)
        elif kind == "request-message":
            request = PrefixRequest.FromString(base64.b64decode(event["bytes"]))
            streams[call].sent.put_nowait(request)
            if request.type == _DELETE:
                await streams[call].sent.join()
        elif kind == "response-message":
            answer = await streams[call].answers.get()
            recorded = PrefixResponse.FromString(base64.b64decode(event["bytes"]))
            assert (answer != recorded) == (("vl3-ipam-wire", "events", str(event["n"])) in DEVIATIONS)
            compared += 1
        elif kind == "request-end":
            streams[call].sent.put_nowait(None)
        elif kind.startswith("response-trailers"):
            endings[call] = await streams[call].end()
        elif kind == "reset" and call not in endings:
            streams[call].task.cancel()
            await asyncio.wait([streams[call].task])
    assert compared == 7
    assert [str(net) for net in supply.pool.prefixes()] == ["172.16.0.0/22"]
    for call in recording["calls"]:
        number = call["call"]
        assert (number in endings) == ("status" in call)
        if number in endings:
            status, text = endings[number]
            assert status != call["status"]["code"]
            assert _deviates(number)
            assert text == call["status"]["message"] or status is Status.OK


def _deviates(call: int) -> bool:
    return ("vl3-ipam-wire", "calls", str(call)) in DEVIATIONS


def test_the_deviating_streams_are_in_the_recording() -> None:
    recording: dict[str, Any] = load("vl3-ipam-wire")
    listed = {case for file, section, case in DEVIATIONS if (file, section) == ("vl3-ipam-wire", "calls")}
    assert listed == {str(call["call"]) for call in recording["calls"] if "status" in call}
