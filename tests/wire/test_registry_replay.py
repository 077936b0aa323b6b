# SPDX-License-Identifier: Apache-2.0
"""Recorded registry calls, made again at our registry and at our manager, at their times.

Does:  sends every recorded call of `registry-nse`, `registry-ns` and `registry-via-nsmgr` to our chains in virtual time
       and compares what is answered: entries without volatile fields, path headers, order within each watch.
Place: tests of the whole room.
State: none.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from nsm_sdk.api import NetworkService, seconds
from nsm_sdk.api.tokens import subject
from nsm_sdk.core import Bound, Call, Query, Running
from nsm_sdk.errors import NsmError
from nsm_sdk.testing import current_clock, run_virtual
from nsm_sdk.transport import Dialer, listen
from tests.fixtures import load, needs_fixtures
from tests.registry.chains import Tokens, manager_role, registry_role
from tests.wire.deviations import DEVIATIONS
from tests.wire.recording import Recorded, calls_to, wall_of

pytestmark = needs_fixtures


@dataclass(slots=True)
class Replayed:
    """What our hop did with one recorded call."""

    answers: list[Any] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    error: NsmError | None = None


def plain(entry: Any, began: float) -> dict[str, Any]:
    """An entry without what is volatile; times to a tenth of a second since the recording began."""
    if isinstance(entry, NetworkService):
        return {
            "name": entry.name,
            "payload": entry.payload,
            "matches": [str(match) for match in entry.matches],
            "path_ids": list(entry.path_ids),
        }
    labels = {service: dict(given.labels) for service, given in entry.network_service_labels.items()}
    expires = round(seconds(entry.expiration_time) - began, 1) if entry.HasField("expiration_time") else None
    return {
        "name": entry.name,
        "services": list(entry.network_service_names),
        "labels": labels,
        "url": entry.url,
        "expires": expires,
        "registered": round(seconds(entry.initial_registration_time) - began, 1),
        "path_ids": list(entry.path_ids),
    }


def answered(message: Any, began: float) -> Any:
    """One answer: an entry, an item of a find, or nothing."""
    name = type(message).__name__
    if name == "Empty":
        return {}
    if name.endswith("Response"):
        entry = message.network_service if name == "NetworkServiceResponse" else message.network_service_endpoint
        return plain(entry, began) | {"deleted": message.deleted}
    return plain(message, began)


def path_of(headers: dict[str, str]) -> Any:
    """The path header: index, and the subject of each token."""
    path = json.loads(headers.get("path", "null"))
    return path and (path["Index"], [subject(segment["token"]) for segment in path["PathSegments"] or ()])


def theirs(call: Recorded, began: float) -> dict[str, Any]:
    """What is compared of a recorded call."""
    answers = [answered(message, began) for message in call.answers]
    if call.method.name == "Find" and not call.request.watch:
        answers.sort(key=lambda one: str(one["name"]))
    return {"failed": bool(call.status), "answers": answers, "path": path_of(call.headers)}


def ours(call: Recorded, replayed: Replayed) -> dict[str, Any]:
    """The same of ours."""
    answers = list(replayed.answers)
    if call.method.name == "Find" and not call.request.watch:
        answers.sort(key=lambda one: str(one["name"]))
    return {"failed": replayed.error is not None, "answers": answers, "path": path_of(replayed.headers)}


async def make(call: Recorded, running: Running, bound: Bound, began: float, replayed: Replayed) -> None:
    """Make one recorded call, and note what comes."""
    registry: Any = bound.ns if call.method.service.endswith("NetworkServiceRegistry") else bound.nse
    made = Call(
        running.runtime,
        metadata=call.metadata,
        onward=dict(call.metadata),
        deadline=running.runtime.clock.now() + call.timeout,
    )
    try:
        if call.method.name == "Register":
            replayed.answers.append(plain(await registry.register(made, call.request), began))
        elif call.method.name == "Unregister":
            await registry.unregister(made, call.request)
            replayed.answers.append({})
        else:
            nse = "networkServiceEndpoint" in call.request.DESCRIPTOR.fields_by_camelcase_name
            entry = call.request.network_service_endpoint if nse else call.request.network_service
            async with aclosing(registry.find(made, Query(entry, call.request.watch))) as stream:
                async for found in stream:
                    replayed.answers.append(plain(found.entry, began) | {"deleted": found.deleted})
    except NsmError as error:
        replayed.error = error
    replayed.headers = dict(made.answer)


async def replay(running: Running, bound: Bound, calls: list[Recorded], began: float, until: float) -> list[Replayed]:
    """Make the calls at their times; streams end where they were ended."""
    clock = running.runtime.clock
    start = clock.now()
    results = [Replayed() for _ in calls]
    tasks: list[asyncio.Task[None]] = []

    async def one(call: Recorded, replayed: Replayed) -> None:
        await asyncio.sleep(max(start + call.at - clock.now(), 0))
        if call.method.name != "Find" or not call.request.watch:
            await make(call, running, bound, began, replayed)
            return
        ended = until if call.ended is None else call.ended
        try:
            async with asyncio.timeout(max(start + ended - clock.now(), 0)):
                await make(call, running, bound, began, replayed)
        except TimeoutError:
            pass

    for call, replayed in zip(calls, results, strict=True):
        tasks.append(asyncio.create_task(one(call, replayed)))
    await asyncio.gather(*tasks)
    return results


def compare(name: str, calls: list[Recorded], results: list[Replayed], began: float) -> None:
    """All calls answer as recorded, but for those in the list, which must differ."""
    wrong: list[Any] = []
    for call, replayed in zip(calls, results, strict=True):
        if call.method.name == "Find" and call.request.watch and call.status is None and not call.answers:
            assert not replayed.answers, (name, call.number)
            continue
        if call.status is None and not call.answers:
            continue  # it was still running when the recording ended
        same = ours(call, replayed) == theirs(call, began)
        if same is ((name, "calls", str(call.number)) in DEVIATIONS):
            wrong.append((call.number, "ours", ours(call, replayed), "theirs", theirs(call, began)))
    assert not wrong, "\n".join(map(str, wrong))


def test_the_endpoint_registry() -> None:
    name = "registry-nse"
    calls = calls_to(name, "registry")
    began = wall_of(calls[0], 3600)

    async def run() -> list[Replayed]:
        async with registry_role(life=3).serving(clock=current_clock()) as running:
            return await replay(running, running.bound, calls, began, 6.0)

    results = run_virtual(run, start_wall=began)
    compare(name, calls, results, began)
    told = [(one["name"], one["deleted"]) for one in results[0].answers]
    # As recorded, but nothing is removed at once: an expiry in the past counts as none asked for.
    assert [one for one in told if one[0] == "nse-past"] == [("nse-past", False), ("nse-past", True)]
    assert [one for one in told if one[0] == "nse-bare"] == [("nse-bare", False)] * 3 + [("nse-bare", True)]


def test_the_service_registry() -> None:
    name = "registry-ns"
    calls = calls_to(name, "registry")
    began = wall_of(calls[0], 3600)

    async def run() -> list[Replayed]:
        async with registry_role(life=3).serving(clock=current_clock()) as running:
            return await replay(running, running.bound, calls, began, 6.0)

    results = run_virtual(run, start_wall=began)
    compare(name, calls, results, began)
    recorded = [(one["name"], one["deleted"]) for one in theirs(calls[0], began)["answers"]]
    told = [(one["name"], one["deleted"]) for one in results[0].answers]
    assert told == [one for one in recorded if one[0]]


def test_a_manager_between() -> None:
    name = "registry-via-nsmgr"
    calls = calls_to(name, "nsmgr-1")
    began = wall_of(calls[0], 3600)
    recording = load(name)
    url = "tcp://" + next(hop["listens_on"] for hop in recording["hops"] if hop["name"] == "nsmgr-1")
    stops = next(event["t_ms"] for event in recording["events"] if "the registry stops" in event.get("text", "")) / 1000

    async def run() -> list[Replayed]:
        clock = current_clock()
        dialer = Dialer(Tokens("spiffe://example.org/nsmgr-1"))
        async with registry_role().serving(listen=[listen("inproc://replayed-registry")], clock=clock) as registry:
            manager = manager_role(dialer, "inproc://replayed-registry", url=url)
            async with manager.serving(clock=clock) as running:
                asyncio.get_running_loop().call_later(stops, registry.kill)
                return await replay(running, running.bound, calls, began, stops + 1)

    compare(name, calls, run_virtual(run, start_wall=began), began)
