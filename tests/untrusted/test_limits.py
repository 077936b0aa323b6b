# SPDX-License-Identifier: Apache-2.0
"""The limits, as `docs/explanation/limits.md` says them.

Does:  sends a little too much of each thing to a hop and reads the refusal; sends just as much as may be, and is
       served; fills tables to their end and empties them again. The page must name every number that the code has.
Place: hops and registries.
State: hops of one test.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsm_sdk import api
from nsm_sdk.api import (
    Connection,
    NetworkService,
    NetworkServiceEndpoint,
    PathSegment,
    Request,
    Selector,
    limits,
)
from nsm_sdk.api.tokens import MAX_TOKEN_CHARS
from nsm_sdk.core import END, NSE, Call, Chain, Element, Next, Role, templates
from nsm_sdk.elements import Begin, Connect, Hub, UpdatePath
from nsm_sdk.elements import begin as elements_begin
from nsm_sdk.elements.monitor_client import UNCLAIMED, UNCLAIMED_SIZE
from nsm_sdk.errors import Exhausted, InvalidRequest, Status
from nsm_sdk.registry import Memory, RegistryBegin
from nsm_sdk.registry import begin as registry_begin
from nsm_sdk.registry import discover as registry_discover
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.testing import Probe, settled
from nsm_sdk.transport import Dialer
from nsm_sdk.transport import settings as transport_settings
from tests.untrusted.hops import Mesh, mesh
from tests.untrusted.sizes import EXAMPLES
from tests.untrusted.strategies import EXPIRES, TOKEN

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "limits.md"


def _labels(conn: Connection) -> Any:
    conn.labels.update({f"label-{number}": "x" for number in range(5000)})


def _value_of_a_label(conn: Connection) -> Any:
    conn.labels["app"] = "x" * (1 << 20)


def _key_of_a_label(conn: Connection) -> Any:
    conn.labels["k" * 100_000] = "x"


def _prefixes(conn: Connection) -> Any:
    conn.context.ip_context.excluded_prefixes.extend(f"10.{n // 256}.{n % 256}.0/24" for n in range(5000))


def _addresses(conn: Connection) -> Any:
    conn.context.ip_context.src_ip_addrs.extend(f"10.0.{n // 256}.{n % 256}/32" for n in range(1, 2001))


def _other_addresses(conn: Connection) -> Any:
    _addresses(conn)
    conn.context.ip_context.dst_ip_addrs.extend(f"10.1.{n // 256}.{n % 256}/32" for n in range(1, 2001))


def _routes(conn: Connection) -> Any:
    for number in range(2000):
        conn.context.ip_context.src_routes.add(prefix=f"10.{number // 256}.{number % 256}.0/24")


def _token(conn: Connection) -> Any:
    conn.path.path_segments[0].token = "x" * 100_000


def _id(conn: Connection) -> Any:
    conn.id = conn.path.path_segments[0].id = "i" * 10_000


def _caller(conn: Connection) -> Any:
    conn.path.path_segments[0].name = "n" * 10_000


def _metrics(conn: Connection) -> Any:
    conn.path.path_segments[0].metrics.update({f"metric-{number}": "1" for number in range(2000)})


def _extra(conn: Connection) -> Any:
    conn.context.extra_context["k"] = "x" * 3_000_000


def _extra_key(conn: Connection) -> Any:
    conn.context.extra_context["k" * 10_000] = "x"


def _configs(conn: Connection) -> Any:
    for number in range(2000):
        conn.context.dns_context.configs.add(
            dns_server_ips=[f"10.0.{number // 256}.{number % 256}"], search_domains=["x" * 10]
        )


def _search(conn: Connection) -> Any:
    conn.context.dns_context.configs.add().search_domains.extend(["x" * 10] * 5000)


EDITS = [
    _labels,
    _value_of_a_label,
    _key_of_a_label,
    _prefixes,
    _addresses,
    _other_addresses,
    _routes,
    _token,
    _id,
    _caller,
    _metrics,
    _extra,
    _extra_key,
    _configs,
    _search,
]


async def _passes(hops: Mesh, request: Request, over: str) -> None:
    """Request, look at it in every hop, refresh and close; nothing is left."""
    raw, good = request.SerializeToString(), {TOKEN: hops.token, EXPIRES: hops.until}
    for _ in range(2):
        status, error = await hops.throw("nsmgr", api.NETWORK_SERVICE_REQUEST, raw, good, over=over)
        assert status is Status.OK, error
        for name in ("nsmgr", "forwarder", "nse"):
            (shown,) = await hops.shown(name)
            assert dict(shown.labels) == dict(request.connection.labels)
            assert dict(shown.context.extra_context) == dict(request.connection.context.extra_context)
            assert shown.context.dns_context == request.connection.context.dns_context
            sent, come = request.connection.context.ip_context, shown.context.ip_context
            assert set(sent.excluded_prefixes) <= set(come.excluded_prefixes)
            assert set(sent.src_ip_addrs) <= set(come.src_ip_addrs)
            assert set(sent.dst_ip_addrs) <= set(come.dst_ip_addrs)
            assert [one.prefix for one in sent.src_routes][:2000] == [
                one.prefix for one in come.src_routes if one.prefix.endswith("/24")
            ]
    closing = request.connection.SerializeToString()
    status, error = await hops.throw("nsmgr", api.NETWORK_SERVICE_CLOSE, closing, good, over=over)
    assert status is Status.OK, error
    await settled()
    assert hops.held() == {}


@pytest.mark.parametrize("over", ["grpc", "inproc"])
async def test_whatever_fits_into_a_message_passes_through_a_mesh(over: str) -> None:
    async with mesh() as hops:
        for number, edit in enumerate(EDITS):
            request = hops.request(number=number)
            edit(request.connection)
            await _passes(hops, request, over)


@pytest.mark.parametrize("over", ["grpc", "inproc"])
async def test_as_many_preferences_and_parameters_as_fit_pass_through_a_mesh(over: str) -> None:
    async with mesh() as hops:
        request = hops.request()
        first = request.mechanism_preferences[0]
        first.parameters.update({f"parameter-{number}": "x" for number in range(2000)})
        first.parameters["long"] = "x" * 100_000
        for _ in range(500):
            request.mechanism_preferences.add(cls="LOCAL", type="MEMIF")
        await _passes(hops, request, over)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(0, 1 << 20),
    st.integers(0, 3000),
    st.integers(0, 2000),
    st.integers(1, 20_000),
    st.sampled_from(("grpc", "inproc")),
)
def test_messages_of_any_size_pass(value: int, labels: int, prefixes: int, name: int, over: str) -> None:
    async def run() -> None:
        async with mesh() as hops:
            request = hops.request()
            conn = request.connection
            conn.labels.update({f"label-{number}": "x" for number in range(labels)})
            conn.labels["long"] = "x" * value
            conn.context.ip_context.excluded_prefixes.extend(f"10.{n // 256}.{n % 256}.0/24" for n in range(prefixes))
            conn.path.path_segments[0].name = "n" * name
            await _passes(hops, request, over)

    asyncio.run(run())


async def test_paths_of_too_many_hops_are_refused_by_the_first_hop() -> None:
    async with mesh() as hops:
        request = hops.request()
        for number in range(64):
            request.connection.path.path_segments.add(name=f"hop-{number}", id="x")
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        for over in ("grpc", "inproc"):
            for method, message in (
                (api.NETWORK_SERVICE_REQUEST, request),
                (api.NETWORK_SERVICE_CLOSE, request.connection),
            ):
                status, error = await hops.throw("nsmgr", method, message.SerializeToString(), good, over=over)
                assert status is Status.INVALID_ARGUMENT
                assert "path_segments has 65 items, at most 64" in str(error)
        entry = hops.endpoint()
        entry.path_ids.extend(["x"] * 257)
        for hop in ("registry", "nsmgr"):
            status, error = await hops.throw(hop, api.NSE_REGISTER, entry.SerializeToString(), good, over="grpc")
            assert status is Status.INVALID_ARGUMENT
            assert "path_ids has 257 items, at most 256" in str(error)
        for error in await _refusals(hops, request):
            assert "path_segments" in error.message
            assert "UpdatePath" in error.element
            assert "circle" in error.hint
        assert hops.held() == {}


async def test_far_too_many_addresses_are_refused_by_the_first_hop() -> None:
    async with mesh() as hops:
        for field in ("src_ip_addrs", "dst_ip_addrs"):
            request = hops.request()
            getattr(request.connection.context.ip_context, field).extend(["10.0.0.1/32"] * (limits.MOST_ADDRESSES + 1))
            for error in await _refusals(hops, request):
                assert f"{field} has 8193 items, at most 8192 are taken" in error.message
                assert "UpdatePath" in error.element
                assert error.hint
        assert hops.held() == {}


async def test_a_message_of_too_many_fields_is_refused_by_the_first_hop() -> None:
    async with mesh() as hops:
        request = hops.request()
        request.connection.context.dns_context.configs.add().search_domains.extend([""] * limits.MOST_FIELDS)
        for error in await _refusals(hops, request):
            for word in (f"{request.ByteSize()} bytes", f"{limits.MOST_FIELDS} fields", "context.dns_context.configs"):
                assert word in error.message
            assert error.element
            assert error.hint
        assert hops.held() == {}


async def _refusals(hops: Mesh, request: Request) -> list[InvalidRequest]:
    """What the manager answers to the request, over a socket and in process."""
    tokens = TokenGenerator(Insecure("nsc", "nsc"))
    dial = Dialer(tokens)
    found: list[InvalidRequest] = []
    async with Role("nsc", services=[tokens, dial]).serving() as running:
        for url in hops.running["nsmgr"].urls:
            peer = dial(url).connection
            assert peer is not None
            with pytest.raises(InvalidRequest) as caught:
                await peer.request(running.call(timeout=5), request)
            assert caught.value.hop == "nsmgr"
            found.append(caught.value)
    assert len(found) == 2
    return found


async def test_registries_and_monitors_take_what_fits_into_a_message() -> None:
    async with mesh() as hops:
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        endpoint = hops.endpoint("e" * 10_000)
        endpoint.network_service_names.extend(f"svc-{number}-{'x' * 16}" for number in range(2000))
        endpoint.network_service_labels["svc"].labels.update({f"label-{number}": "x" for number in range(5000)})
        endpoint.network_service_labels["svc"].labels["long"] = "x" * (1 << 20)
        service = NetworkService(name="s" * 10_000, payload="IP")
        for number in range(1000):
            match = service.matches.add(source_selector={"app": f"{number}"})
            match.routes.add(destination_selector={"app": "x" * 100})
        query = api.NetworkServiceEndpointQuery(network_service_endpoint=endpoint)
        selector = Selector(network_services=["x" * 10] * 5000)
        for over in ("grpc", "inproc"):
            for hop, method, message in (
                ("registry", api.NSE_REGISTER, endpoint),
                ("registry", api.NSE_FIND, query),
                ("registry", api.NSE_UNREGISTER, endpoint),
                ("nsmgr", api.NSE_REGISTER, endpoint),
                ("nsmgr", api.NSE_FIND, query),
                ("nsmgr", api.NSE_UNREGISTER, endpoint),
                ("nsmgr", api.NS_REGISTER, service),
                ("nse", api.MONITOR_CONNECTIONS, selector),
            ):
                status, error = await hops.throw(hop, method, message.SerializeToString(), good, over=over)
                assert status is Status.OK, (hop, method, error)


async def test_a_service_with_an_enormous_name_is_served_by_labels_of_any_length() -> None:
    async with mesh() as hops:
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        name, app = "s" * 10_000, "a" * 100_000
        service = NetworkService(name=name, payload="IP")
        for number in range(300):
            service.matches.add(source_selector={"app": f"{number}"})
        service.matches.add(source_selector={"app": app}).routes.add(destination_selector={"app": "{{ .app }}"})
        endpoint = NetworkServiceEndpoint(
            name="nse", network_service_names=["svc", name], url=hops.running["nse"].urls[0]
        )
        endpoint.network_service_labels[name].labels["app"] = app
        for method, entry in ((api.NS_REGISTER, service), (api.NSE_REGISTER, endpoint)):
            status, error = await hops.throw("nsmgr", method, entry.SerializeToString(), good, over="grpc")
            assert status is Status.OK, error
        request = hops.request()
        request.connection.network_service = name
        request.connection.labels["app"] = app
        await _passes(hops, request, "grpc")


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
        MAX_TOKEN_CHARS,
        limits.SMALL,
        limits.MOST_FIELDS,
        limits.MOST_HOPS,
        limits.MOST_IDS,
        limits.MOST_ADDRESSES,
        registry_discover.MOST_SELECTORS,
        UNCLAIMED,
        UNCLAIMED_SIZE,
        elements_begin.MOST,
        elements_begin.MOST_BYTES,
        registry_begin.MOST,
        registry_begin.MOST_BYTES,
        templates.LONGEST,
        templates.MOST_RENDERED,
        templates.MOST_PARTS,
        templates.MOST_OF_A_CHOICE,
        transport_settings.MAX_METADATA,
        transport_settings.MAX_MESSAGE,
        transport_settings.MAX_STREAMS,
    ):
        assert wanted in numbers, wanted
    for name in ("path_segments", "path_ids", "src_ip_addrs", "dst_ip_addrs"):
        assert f"`{name}`" in text, name
