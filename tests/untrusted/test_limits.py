# SPDX-License-Identifier: Apache-2.0
"""The limits, as `docs/explanation/limits.md` says them.

Does:  sends a little too much of each thing to a hop and reads the refusal; sends just as much as may be, and is
       served; fills tables to their end and empties them again. The page must name every number that the code has.
Place: hops and registries.
State: hops of one test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsm_sdk import api
from nsm_sdk.api import Connection, NetworkServiceEndpoint, PathSegment, Request, Selector, limits, wire
from nsm_sdk.core import END, NSE, Call, Chain, Element, Next, Role, templates
from nsm_sdk.elements import Begin, Connect, Hub, UpdatePath
from nsm_sdk.elements import begin as elements_begin
from nsm_sdk.errors import Exhausted, InvalidRequest, Status
from nsm_sdk.registry import Memory, RegistryBegin
from nsm_sdk.registry import begin as registry_begin
from nsm_sdk.testing import Probe, settled
from nsm_sdk.transport import settings as transport_settings
from tests.untrusted.hops import TIME, mesh
from tests.untrusted.strategies import EXPIRES, TOKEN

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "limits.md"


def _labels(conn: Connection) -> Any:
    conn.labels.update({f"label-{number}": "x" for number in range(limits.ITEMS + 1)})


def _hops(conn: Connection) -> Any:
    conn.path.path_segments.extend(PathSegment(name=f"hop-{number}", id="x" * 128) for number in range(64))


def _prefixes(conn: Connection) -> Any:
    conn.context.ip_context.excluded_prefixes.extend(["10.0.0.0/8"] * 4097)


def _name(conn: Connection) -> Any:
    conn.network_service = "x" * 10_000


def _token(conn: Connection) -> Any:
    conn.path.path_segments[0].token = "x" * 20_000


def _value(conn: Connection) -> Any:
    conn.context.extra_context["k"] = "x" * 70_000


def _key(conn: Connection) -> Any:
    conn.context.extra_context["k" * 10_000] = "x"


def _parameter(conn: Connection) -> Any:
    conn.mechanism.parameters["k"] = "x" * 20_000


def _policies(conn: Connection) -> Any:
    for _ in range(5000):
        conn.context.ip_context.policies.add()


def _search(conn: Connection) -> Any:
    conn.context.dns_context.configs.add().search_domains.extend(["x" * 10] * 1100)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_labels, "labels has 1025 items, at most 1024"),
        (_hops, "path_segments has 65 items, at most 64"),
        (_prefixes, "excluded_prefixes has 4097 items, at most 4096"),
        (_name, "network_service has 10000 characters, at most 4096"),
        (_token, "token has 20000 characters, at most 16384"),
        (_value, "a value of connection.context.extra_context has 70000 characters, at most 65536"),
        (_key, "a key of connection.context.extra_context has 10000 characters, at most 4096"),
        (_parameter, "parameters has 20000 characters, at most 16384"),
        (_policies, "policies has 5000 items, at most 128"),
        (_search, "search_domains has 1100 items, at most 1024"),
    ],
)
async def test_too_much_of_anything_is_refused_by_the_first_hop(edit: Callable[[Connection], Any], words: str) -> None:
    async with mesh() as hops:
        request = hops.request()
        edit(request.connection)
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        for method, message in (
            (api.NETWORK_SERVICE_REQUEST, request),
            (api.NETWORK_SERVICE_CLOSE, request.connection),
        ):
            status, error = await hops.throw("nsmgr", method, message.SerializeToString(), good, over="grpc")
            assert status is Status.INVALID_ARGUMENT
            assert words.removeprefix("a value of connection.").removeprefix("a key of connection.") in error.details()
        assert hops.held() == {}


async def test_as_much_as_may_be_is_served() -> None:
    async with mesh() as hops:
        request = hops.request()
        conn = request.connection
        conn.labels.update({f"label-{number}": "x" for number in range(limits.ITEMS)})
        conn.context.ip_context.excluded_prefixes.extend(f"10.{n // 256}.{n % 256}.0/24" for n in range(4096))
        conn.context.extra_context["k"] = "x" * 65_536
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        raw = request.SerializeToString()
        status, error = await hops.throw("nsmgr", api.NETWORK_SERVICE_REQUEST, raw, good, over="grpc")
        assert status is Status.OK, error
        status, error = await hops.throw(
            "nsmgr", api.NETWORK_SERVICE_CLOSE, conn.SerializeToString(), good, over="grpc"
        )
        assert status is Status.OK, error


async def test_registries_and_monitors_have_limits_too() -> None:
    async with mesh() as hops:
        endpoint = hops.endpoint()
        endpoint.network_service_names.extend(f"svc-{number}-{'x' * 16}" for number in range(2000))
        query = api.NetworkServiceEndpointQuery(network_service_endpoint=endpoint)
        selector = Selector(network_services=["x" * 10] * 2000)
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        for hop, method, message in (
            ("registry", api.NSE_REGISTER, endpoint),
            ("registry", api.NSE_UNREGISTER, endpoint),
            ("registry", api.NSE_FIND, query),
            ("nsmgr", api.NSE_REGISTER, endpoint),
            ("nse", api.MONITOR_CONNECTIONS, selector),
        ):
            for over in ("grpc", "inproc"):
                # A stream that is refused ends by itself, however long that takes.
                raw = message.SerializeToString()
                status, error = await hops.throw(hop, method, raw, good, over=over, moment=TIME)
                assert status is Status.INVALID_ARGUMENT, (hop, method, error)
                assert "items, at most 1024 are taken" in str(error)


async def test_metadata_has_a_limit() -> None:
    async with mesh() as hops:
        raw = hops.request().SerializeToString()
        huge = {TOKEN: hops.token, EXPIRES: hops.until, "x": "y" * (2 * transport_settings.MAX_METADATA)}
        status, _ = await hops.throw("nsmgr", api.NETWORK_SERVICE_REQUEST, raw, huge, over="grpc")
        assert status is Status.RESOURCE_EXHAUSTED
        assert hops.held() == {}


async def test_a_path_that_goes_round_in_a_circle_ends() -> None:
    conn = Connection(id="x" * 8)
    conn.path.path_segments.extend(PathSegment(name=f"hop-{number}", id="x" * 8) for number in range(64))
    conn.path.index = 63
    bound = Chain("hop", UpdatePath("hop", opens=False), Begin()).bind(Connect(_nowhere).bind(END))
    async with Role("hop").serving() as running:
        with pytest.raises(InvalidRequest, match="at most 63") as caught:
            await bound.request(running.call(), Request(connection=conn))
    assert "circle" in caught.value.hint


def _nowhere(url: str) -> Any:
    raise AssertionError(url)


async def test_a_hop_takes_only_so_many_connections() -> None:
    begin = Begin(most=3)
    bound = Chain("hop", begin).bind(END)
    async with Role("hop").serving() as running:
        conns = [await bound.request(running.call(), Request(connection=Connection(id=f"{n}"))) for n in range(3)]
        with pytest.raises(Exhausted, match="3 connections") as caught:
            await bound.request(running.call(), Request(connection=Connection(id="3")))
        assert caught.value.hint
        await bound.request(running.call(), Request(connection=conns[0]))
        await bound.close(running.call(), conns[0])
        await bound.request(running.call(), Request(connection=Connection(id="3")))
        assert len(begin) == 3


class _Answers(Element):
    """Answers with a long label."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        if request.connection.id == "grows":
            conn.labels["long"] = "x" * 2000
        return conn


def _sized(name: str, size: int) -> tuple[Request, int]:
    request = Request(connection=Connection(id=name))
    request.connection.labels["pad"] = "x" * size
    return request, request.ByteSize()


async def test_a_hop_takes_only_so_many_bytes() -> None:
    begin, below = Begin(most_bytes=3000), Probe()
    bound = Chain("hop", begin, below, _Answers()).bind(END)
    async with Role("hop").serving() as running:

        async def ask(name: str, size: int) -> None:
            request, length = _sized(name, size)
            await bound.request(Call(running.runtime, deadline=running.call(timeout=5).deadline, size=length), request)

        await ask("a", 1000)
        await ask("b", 1000)
        for name in ("c", "a"):
            with pytest.raises(Exhausted, match="bytes") as caught:
                await ask(name, 2500)
            assert caught.value.hint
        assert sorted(begin.ids()) == ["a", "b"]
        # Refreshing what there is, and making it shorter, costs nothing.
        await ask("a", 1000)
        await ask("b", 10)
        await ask("c", 900)
        # An answer that is too long undoes a first request, and leaves a connection that stands as it is.
        await bound.close(running.call(), Connection(id="b"))
        with pytest.raises(Exhausted, match="bytes"):
            await ask("grows", 1)
        await settled()
        assert sorted(begin.ids()) == ["a", "c"]
        assert below.seen.verbs[-1] == "close"
        for name in ("a", "c"):
            await bound.close(running.call(), Connection(id=name))
        assert begin._queue.bytes == 0


async def test_a_registry_takes_only_so_many_bytes() -> None:
    chain = Chain("registry", RegistryBegin(NSE, most_bytes=3000), Memory(NSE))
    async with Role("registry", nse=chain).serving() as running:
        bound = running.bound.nse
        assert bound is not None

        async def register(name: str, size: int) -> None:
            entry = NetworkServiceEndpoint(name=name, url="x" * size)
            await bound.register(Call(running.runtime, size=entry.ByteSize()), entry)

        await register("a", 1000)
        await register("b", 1000)
        with pytest.raises(Exhausted, match="endpoints here take") as caught:
            await register("c", 2000)
        assert caught.value.hint
        await register("a", 1000)
        await bound.unregister(running.call(), NetworkServiceEndpoint(name="a"))
        await register("c", 1500)


async def test_a_registry_takes_only_so_many_names() -> None:
    memory = Memory(NSE)
    chain = Chain("registry", RegistryBegin(NSE, most=3), memory)
    async with Role("registry", nse=chain).serving() as running:
        bound = running.bound.nse
        assert bound is not None
        for number in range(3):
            await bound.register(running.call(), NetworkServiceEndpoint(name=f"{number}"))
        with pytest.raises(Exhausted, match="3 endpoints") as caught:
            await bound.register(running.call(), NetworkServiceEndpoint(name="3"))
        assert caught.value.hint
        await bound.register(running.call(), NetworkServiceEndpoint(name="0"))
        await bound.unregister(running.call(), NetworkServiceEndpoint(name="0"))
        await bound.register(running.call(), NetworkServiceEndpoint(name="3"))
        assert len(memory.store) == 3


async def test_the_first_event_of_a_stream_lets_others_have_their_turn() -> None:
    hub = Hub()
    async with Role("hop").serving() as running:
        await hub.start(running.runtime)
        for number in range(1000):
            conn = Connection(id=f"{number}")
            conn.path.path_segments.add(name="hop", id=conn.id)
            hub.update(conn)
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            running.runtime.after(0, turn)

        turn()
        stream = hub.watch(Selector())
        first = await anext(stream)
        await stream.aclose()
        assert len(first.connections) == 1000
        assert turns >= 3
        await hub.stop()


def test_the_page_names_every_limit() -> None:
    text = PAGE.read_text().replace(",", "").replace(" MiB", "MiB")
    numbers = {int(number) for number in re.findall(r"\b\d+\b", text)}
    for wanted in (
        limits.SMALL,
        limits.ITEMS,
        limits.CHARACTERS,
        *limits.MOST_ITEMS.values(),
        *limits.LONGEST.values(),
        wire.SMALL,
        wire.MOST_FIELDS,
        elements_begin.MOST,
        elements_begin.MOST_BYTES,
        registry_begin.MOST,
        registry_begin.MOST_BYTES,
        templates.LONGEST,
        templates.MOST_PARTS,
        templates.MOST_OF_A_CHOICE,
        transport_settings.MAX_METADATA,
        transport_settings.MAX_MESSAGE,
        transport_settings.MAX_STREAMS,
    ):
        assert wanted in numbers, wanted
    for name in (*limits.MOST_ITEMS, *limits.LONGEST):
        assert f"`{name}`" in text, name
