# SPDX-License-Identifier: Apache-2.0
"""Elements that applications write, with the mistakes that people make."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from nsm_sdk.api import Connection, ConnectionEvent, NetworkServiceEndpoint, Request, Selector
from nsm_sdk.core import (
    END,
    NSE,
    QUERY_END,
    WATCH_END,
    Call,
    Chain,
    Element,
    Found,
    Layer,
    Next,
    Query,
    QueryElement,
    QueryNext,
    RegistryElement,
    RegistryNext,
    Role,
    WatchElement,
    WatchNext,
    find_all,
    registry_end,
)
from nsm_sdk.elements import Begin, UpdatePath
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.testing import Probe, rig, sample_request, settled, virtual_time

# mypy sees each of these; people who do not use it see what is tested here.
# mypy: disable-error-code="return-value, return, unused-coroutine, misc, override, empty-body, attr-defined"


class ReturnsNothing(Element):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        await next.request(call, request)


class ReturnsWithoutAwait(Element):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        return next.request(call, request)


class ClosesWithoutAwait(Element):
    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        next.close(call, conn)


class NoCoroutine(Element):
    def request(self, call: Call, request: Request, next: Next) -> Connection:
        next.request(call, request)


class Yields(Element):
    async def request(self, call: Call, request: Request, next: Next) -> Any:
        yield await next.request(call, request)


class RegistersNothing(RegistryElement[NetworkServiceEndpoint]):
    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        await next.register(call, entry)


class UnregistersWithoutAwait(RegistryElement[NetworkServiceEndpoint]):
    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        next.unregister(call, entry)


class FindsNoStream(RegistryElement[NetworkServiceEndpoint]):
    async def find(
        self,
        call: Call,
        query: Query[NetworkServiceEndpoint],
        next: RegistryNext[NetworkServiceEndpoint],
    ) -> Any:
        return next.find(call, query)


class WatchesNoStream(WatchElement):
    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> Any:
        return next.watch(call, selector)


class AsksWithoutAwait(QueryElement):
    async def query(self, call: Call, message: Any, next: QueryNext) -> Any:
        return next.query(call, message)


CERTAIN: list[tuple[type[Layer[Any]], str, str]] = [
    (ReturnsNothing, "request", "returns nothing"),
    (ReturnsWithoutAwait, "request", r"calls `next\.request` without `await`"),
    (ClosesWithoutAwait, "close", r"calls `next\.close` without `await`"),
    (NoCoroutine, "request", "returns nothing"),
    (Yields, "request", "has a `yield` in it"),
    (RegistersNothing, "register", "returns nothing"),
    (UnregistersWithoutAwait, "unregister", r"calls `next\.unregister` without `await`"),
    (FindsNoStream, "find", "is no asynchronous generator"),
    (WatchesNoStream, "watch", "is no asynchronous generator"),
    (AsksWithoutAwait, "query", r"calls `next\.query` without `await`"),
]
ENDS: dict[type[Layer[Any]], Any] = {
    Element: END,
    RegistryElement: registry_end(),
    WatchElement: WATCH_END,
    QueryElement: QUERY_END,
}


@pytest.mark.parametrize(("kind", "verb", "what"), CERTAIN, ids=lambda one: getattr(one, "__name__", ""))
def test_what_the_code_shows_is_refused_before_any_call(kind: type[Layer[Any]], verb: str, what: str) -> None:
    end = next(end for family, end in ENDS.items() if issubclass(kind, family))
    for put_together in (lambda: Chain("chain", kind()).check(), lambda: kind().bind(end)):
        with pytest.raises(ProgrammingError, match=f"{kind.__name__}.{verb} {what}") as caught:
            put_together()
        assert caught.value.element == f"{kind.__name__}.{verb}"
        assert caught.value.hint


def test_a_role_with_such_an_element_is_not_made() -> None:
    with pytest.raises(ProgrammingError, match="ReturnsNothing"):
        Role("r", connection=Chain("r", UpdatePath("r"), Begin(), ReturnsNothing())).check()


class Sometimes(Element):
    """Does what `how` says, in ways that its code does not show."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def request(self, call: Call, request: Request, next: Next) -> Any:
        if self.how == "right":
            return await next.request(call, request)
        if self.how == "nothing":
            await next.request(call, request)
            return None
        if self.how == "another":
            await next.request(call, request)
            return request
        if self.how == "coroutine":
            return next.request(call, request)
        if self.how == "uses a coroutine":
            answer: Any = next.request(call, request)
            answer.labels["a"] = "b"
            return answer
        if self.how == "forgotten":
            next.request(call, request)
            return request.connection
        raise AssertionError(self.how)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if self.how == "close":
            next.close(call, conn)
        else:
            await next.close(call, conn)


@virtual_time
@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("nothing", "returned nothing"),
        ("another", "returned an object of type NetworkServiceRequest"),
        ("coroutine", r"called `next\.request` and did not await it"),
        ("uses a coroutine", r"called `next\.request` and did not await it"),
        ("forgotten", r"called `next\.request` and did not await it"),
    ],
)
async def test_what_only_a_call_shows_names_the_element_and_leaves_nothing(how: str, what: str) -> None:
    begin, above = Begin(), Probe()
    async with rig(begin, above, Sometimes(how)) as bench:
        with pytest.raises(ProgrammingError, match=rf"Sometimes\.request {what}") as caught:
            await bench.request(sample_request())
        await settled()
        assert (caught.value.element, bool(caught.value.hint)) == ("Sometimes.request", True)
        assert len(begin) == 0
        assert not await bench.left()


@virtual_time
async def test_a_close_that_is_not_awaited() -> None:
    own, below = Sometimes("right"), Probe()
    async with rig(Begin(), own, below) as bench:
        answer = await bench.request(sample_request())
        own.how = "close"
        with pytest.raises(ProgrammingError, match=r"Sometimes\.close called `next\.close` and did not await it"):
            await bench.close(answer)
        assert below.seen.closes == 1, "what stands below is closed all the same"
        own.how = "right"
        await bench.close(answer)
        assert not await bench.left()


class Delegates(Element):
    """Right, though it awaits nothing itself."""

    def request(self, call: Call, request: Request, next: Next) -> Any:
        return next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        call.runtime.spawn(lambda: next.close(call, conn), "close later")


class Raises(Element):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        raise ProgrammingError("on purpose")


class Streams(RegistryElement[NetworkServiceEndpoint]):
    """Yields what it is told to."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    async def find(
        self,
        call: Call,
        query: Query[NetworkServiceEndpoint],
        next: RegistryNext[NetworkServiceEndpoint],
    ) -> AsyncGenerator[Found[NetworkServiceEndpoint], None]:
        for item in self.items:
            yield item


@virtual_time
async def test_what_is_right_is_let_through() -> None:
    async with rig(Begin(), Delegates(), Probe()) as bench:
        answer = await bench.request(sample_request())
        await bench.close(answer)
        await settled()
        assert bench.seen.closes == 1
    Chain("chain", Raises(), Delegates()).check()
    entry = NetworkServiceEndpoint(name="a")
    role = Role("r", nse=Chain("r", Streams(Found(entry))))
    async with role.serving() as running:
        assert running.bound.nse is not None
        found = await find_all(running.bound.nse, running.call(), Query(NSE.copy(entry)))
        assert found == [entry]


@virtual_time
@pytest.mark.parametrize(("item", "what"), [(None, "nothing"), ("text", "an object of type str")])
async def test_a_stream_of_nonsense(item: Any, what: str) -> None:
    role = Role("r", nse=Chain("r", Streams(item)))
    async with role.serving() as running:
        assert running.bound.nse is not None
        with pytest.raises(ProgrammingError, match=rf"Streams\.find yielded {what}"):
            await find_all(running.bound.nse, running.call(), Query(NetworkServiceEndpoint()))


class WatchesNonsense(WatchElement):
    async def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        yield Connection()


@virtual_time
async def test_a_watch_of_nonsense() -> None:
    role = Role("r", monitor=Chain("r", WatchesNonsense()))
    async with role.serving() as running:
        assert running.bound.monitor is not None
        with pytest.raises(ProgrammingError, match=r"WatchesNonsense\.watch yielded an object of type Connection"):
            await anext(running.bound.monitor.watch(running.call(), Selector()))
