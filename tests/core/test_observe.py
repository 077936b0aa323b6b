# SPDX-License-Identifier: Apache-2.0
"""Observers: what they see, and that without one nothing is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from nsm_sdk.api import Connection, ConnectionEvent, NetworkServiceEndpoint, Request, Selector
from nsm_sdk.core import (
    END,
    STREAMING,
    WATCH_END,
    Call,
    Chain,
    Element,
    Next,
    Place,
    Query,
    RegistryElement,
    RegistryNext,
    Role,
    Timing,
    WatchElement,
    WatchNext,
    find_all,
    find_one,
    registry_end,
    walk,
)
from nsm_sdk.errors import Unavailable
from nsm_sdk.testing import Entries, FailTimes, VirtualClock, sample_endpoint, sample_request, virtual_time
from tests.core.elements import Branches, Closes, NamesEndpoint, Passive, Tags


class Sees:
    """Counts what is bound, and changes nothing."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def wrap(self, place: Place, verb: Any) -> Any:
        self.places.append(str(place))
        return verb


def test_each_overridden_verb_is_wrapped_once_at_bind() -> None:
    sees = Sees()
    Chain("all", Tags("a"), Passive(), Chain("inner", Closes()), Branches(Tags("l"), Passive())).bind(END, sees)
    assert sorted(sees.places) == ["Closes.close", "Tags.request", "Tags.request"]


def test_without_an_observer_no_wrapper_is_there() -> None:
    chain = Chain("all", Tags("a"))
    assert chain.bind(END).request.__qualname__ == chain.bind(END, Sees()).request.__qualname__


def test_a_role_passes_its_observer_to_all_families() -> None:
    sees = Sees()
    role = Role(
        "hop",
        connection=Chain("c", Tags("a")),
        monitor=Chain("m", Slow()),
        nse=Chain("nse", NamesEndpoint()),
    )
    role.bind(sees)
    assert sorted(sees.places) == ["NamesEndpoint.find", "NamesEndpoint.register", "Slow.watch", "Tags.request"]


class Waits(Element):
    """Takes one second on the way down and two on the way up."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        await anyio.sleep(1.0)
        conn = await next.request(call, request)
        await anyio.sleep(2.0)
        return conn


class Slow(WatchElement):
    """An event a second, for ever."""

    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        while True:
            await anyio.sleep(1.0)
            yield ConnectionEvent()


class Breaks(RegistryElement[NetworkServiceEndpoint]):
    """A find that fails after one item."""

    async def find(
        self, call: Call, query: Query[NetworkServiceEndpoint], next: RegistryNext[NetworkServiceEndpoint]
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(next.find(call, query)) as stream:
            async for found in stream:
                yield found
                raise Unavailable("broken")


Reports = list[tuple[str, float, BaseException | None]]


def timing() -> tuple[Timing, Reports]:
    reports: Reports = []

    def report(place: Place, call: Any, seconds: float, error: BaseException | None) -> None:
        assert isinstance(call, Call)
        reports.append((str(place), seconds, error))

    return Timing(report, VirtualClock().now), reports


@virtual_time
async def test_timing_reports_each_step_inside_out() -> None:
    observer, reports = timing()
    error = Unavailable("below")
    async with Role("hop", connection=Chain("all", Waits(), FailTimes(1, error))).serving(observe=observer) as running:
        bound = running.bound.connection
        assert bound is not None
        with pytest.raises(Unavailable):
            await bound.request(running.call(), sample_request())
        await bound.request(running.call(), sample_request())
    assert reports == [
        ("FailTimes.request", 0.0, error),
        ("Waits.request", 1.0, error),
        ("FailTimes.request", 0.0, None),
        ("Waits.request", 3.0, None),
    ]


@virtual_time
async def test_timing_reports_a_cancellation() -> None:
    observer, reports = timing()
    async with Role("hop", connection=Chain("all", Waits())).serving(observe=observer) as running:
        bound = running.bound.connection
        assert bound is not None
        with anyio.move_on_after(0.5):
            await bound.request(running.call(), sample_request())
    assert [(place, seconds) for place, seconds, _ in reports] == [("Waits.request", 0.5)]
    assert reports[0][2] is not None


@virtual_time
async def test_timing_of_streams_that_end_break_or_are_left() -> None:
    observer, reports = timing()
    query = Query(NetworkServiceEndpoint())
    async with Role("hop").serving() as running:
        whole = Chain("nse", Entries(sample_endpoint("a"), sample_endpoint("b"))).bind(registry_end(), observer)
        assert len(await find_all(whole, running.call(), query)) == 2
        assert reports == [("Entries.find", 0.0, None)]
        assert await find_one(whole, running.call(), query) is not None
        assert len(reports) == 2
        assert isinstance(reports[1][2], GeneratorExit)
        broken = Chain("nse", Breaks(), Entries(sample_endpoint("a"))).bind(registry_end(), observer)
        with pytest.raises(Unavailable):
            await find_all(broken, running.call(), query)
        # The stream below was closed before its reader's end was reported.
        assert [place for place, _, _ in reports[2:]] == ["Entries.find", "Breaks.find"]
        assert isinstance(reports[3][2], Unavailable)
        watch = Chain("monitor", Slow()).bind(WATCH_END, observer)
        async with aclosing(watch.watch(running.call(), Selector())) as stream:
            async for _ in stream:
                break
        assert reports[4][:2] == ("Slow.watch", 1.0)


def test_streaming_verbs_are_those_that_answer_generators() -> None:
    assert {"find", "watch"} == STREAMING
    assert str(Place(Tags("a"), "request")) == "Tags.request"
    assert [type(layer).__name__ for layer in walk(Branches(Tags("l"), Passive()))] == ["Tags", "Passive"]
