# SPDX-License-Identifier: Apache-2.0
"""Calls that fail leave nothing behind, however many there are.

Does:  repeats a row of bad calls of every method over both transports, and compares the objects of ours that are alive,
       tasks and timers after one row with those after several more.
Place: whole hops.
State: a mesh.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import anyio
import pytest
from google.protobuf.message import Message

from nsm_sdk import api
from nsm_sdk.api import Request
from nsm_sdk.core import Timer
from nsm_sdk.elements import Monitor
from nsm_sdk.errors import Status
from nsm_sdk.testing import settled
from tests.untrusted.hops import HOPS, Mesh, mesh, methods
from tests.untrusted.strategies import EXPIRES, TOKEN

ROWS = 6


async def _bad_row(hops: Mesh, row: int) -> Counter[Status]:
    """Calls that fail, each for another reason; ids are new in every row."""
    good = {TOKEN: hops.token, EXPIRES: hops.until}
    answers: Counter[Status] = Counter()
    for over in ("inproc", "grpc"):
        for hop in HOPS:
            for method in methods(hop):
                for metadata, raw in (
                    ({}, hops.good(hop, method).SerializeToString()),
                    (good, b"\xff\xff"),
                ):
                    if method.server_streaming and raw != b"\xff\xff":
                        continue
                    answers[(await hops.throw(hop, method, raw, metadata, over=over))[0]] += 1
        for hop, spoil in (
            ("nsmgr", lambda request: setattr(request.connection, "network_service", "nobody")),
            ("nsmgr", lambda request: request.mechanism_preferences[0].parameters.update(name="x" * 16)),
            ("forwarder", lambda request: setattr(request.mechanism_preferences[0], "type", "PIGEON")),
            ("forwarder", lambda request: setattr(request.connection.path, "index", 9)),
            ("nse", lambda request: setattr(request.connection.mechanism, "type", "PIGEON")),
            ("nsmgr", lambda request: request.connection.context.ip_context.src_routes.add(prefix="x")),
        ):
            request: Request = hops.request(hop, 1000 * row + len(answers))
            spoil(request)
            raw = request.SerializeToString()
            answers[(await hops.throw(hop, api.NETWORK_SERVICE_REQUEST, raw, good, over=over))[0]] += 1
    return answers


def _alive() -> Counter[str]:
    """Objects of ours, by type; messages by the name of theirs."""
    gc.collect()
    # A timer that was cancelled is a dead cell of its heap, which rebuilds itself when it has many.
    kinds = [type(one) for one in gc.get_objects() if not (isinstance(one, Timer) and not one.pending)]
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if str(kind.__module__).startswith("nsm_sdk.") or issubclass(kind, Message) or kind is asyncio.Task
    )


async def _rest(hops: Mesh) -> None:
    for _ in range(300):
        await settled()
        if not hops.held():
            return
        await asyncio.sleep(0.02)
    assert hops.held() == {}


@pytest.mark.timeout(60)
async def test_bad_calls_leave_no_object_task_or_timer() -> None:
    async with mesh() as hops:
        answers = await _bad_row(hops, 0)
        assert answers[Status.INVALID_ARGUMENT] > 20
        assert answers[Status.UNAUTHENTICATED] >= 6
        await _rest(hops)
        timers = {name: len(running.runtime.timers) for name, running in hops.running.items()}
        before = _alive()
        for row in range(1, ROWS):
            await _bad_row(hops, row)
        await _rest(hops)
        more = {kind: count - before[kind] for kind, count in _alive().items() if count - before[kind] >= ROWS - 1}
        assert more == {}
        assert timers == {name: len(running.runtime.timers) for name, running in hops.running.items()}


async def test_streams_that_are_opened_and_left_leave_nothing() -> None:
    async with mesh() as hops:
        hubs = [
            layer.hub
            for running in hops.running.values()
            for chain in running.chains
            for layer in chain.walk()
            if isinstance(layer, Monitor)
        ]
        raw = api.Selector().SerializeToString()

        async def look() -> None:
            await hops.throw("nse", api.MONITOR_CONNECTIONS, raw, {}, over="grpc")

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(look)
        for _ in range(200):
            if not any(hub.subscribers for hub in hubs):
                break
            await asyncio.sleep(0.01)
        assert [hub.subscribers for hub in hubs] == [0] * len(hubs)
