# SPDX-License-Identifier: Apache-2.0
"""Connect: on to the next hop, over serialised messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Call, Chain, Element, Next, Role, Running
from nsm_sdk.elements import NEXT_HOP, Begin, Connect, UpdatePath
from nsm_sdk.elements.connect import is_elsewhere
from nsm_sdk.errors import (
    FailedPrecondition,
    NotReached,
    Status,
    Unavailable,
    Unimplemented,
    from_status,
)
from nsm_sdk.testing import FailTimes, Lose, Park, Probe, Rig, current_clock, rig, settled, virtual_time
from nsm_sdk.transport import Dialer, listen


class Choose(Element):
    """Sends requests to whatever `url` says at the time."""

    def __init__(self, url: str = "") -> None:
        self.url = url

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.url = self.url
        return await next.request(call, request)


@asynccontextmanager
async def two(
    near: list[Element], *hops: tuple[str, list[Element]]
) -> AsyncGenerator[tuple[Rig, dict[str, Running]], None]:
    """A client whose chain ends in Connect, and named hops that it can reach at inproc://NAME."""
    async with AsyncExitStack() as stack:
        running = {}
        for name, elements in hops:
            role = Role(name, connection=Chain(name, UpdatePath(name, opens=False), Begin(), *elements))
            serving = role.serving(listen=[listen(f"inproc://{name}")], clock=current_clock())
            running[name] = await stack.enter_async_context(serving)
        chain = Chain("nsc", UpdatePath("nsc"), Begin(), *near, Connect(Dialer()))
        yield await stack.enter_async_context(rig(chain)), running


def asking() -> Request:
    return Request(connection=Connection(id="c1", network_service="ns"))


@virtual_time
async def test_the_answer_is_the_far_sides_and_the_close_follows_the_request() -> None:
    probe = Probe()
    async with two([Choose("inproc://far")], ("far", [probe])) as (client, running):
        conn = await client.request(asking(), timeout=5)
        assert [segment.name for segment in conn.path.path_segments] == ["nsc", "far"]
        assert (conn.id, conn.path.index) == ("c1", 0)
        await client.close(timeout=5)
        assert probe.seen.verbs == ["request", "close"]
        assert probe.seen.calls[0].connection.id == probe.seen.calls[1].connection.id
        assert len(running["far"].find(Begin)) == 0
        assert not await client.left()


@virtual_time
async def test_nobody_chose() -> None:
    async with two([]) as (client, _):
        with pytest.raises(FailedPrecondition, match="next hop"):
            await client.request(asking())


@virtual_time
async def test_a_peer_that_offers_no_connections() -> None:
    empty = Role("empty").serving(listen=[listen("inproc://empty")], clock=current_clock())
    async with empty, two([Choose("inproc://empty")]) as (client, _):
        with pytest.raises(Unimplemented):
            await client.request(asking(), timeout=5)
        assert not await client.left(), "who has no connections was sent nothing"


@virtual_time
async def test_what_never_left_this_hop_leaves_nothing_here() -> None:
    async with two([Choose("inproc://nobody")]) as (client, _):
        with pytest.raises(NotReached, match="nobody answers"):
            await client.request(asking(), timeout=5)
        assert not await client.left()


@virtual_time
async def test_who_gives_up_while_the_transport_dials_leaves_nothing_either() -> None:
    async with two([Choose("inproc://nobody")]) as (client, _):
        for _ in range(2):
            asked = asyncio.ensure_future(client.request(asking(), timeout=60))
            await settled()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert not await client.left()


@virtual_time
async def test_who_gives_up_while_the_next_hop_works_has_something_to_close() -> None:
    slow, probe = Park(), Probe()
    async with two([Choose("inproc://far")], ("far", [probe, slow])) as (client, running):
        asked = asyncio.ensure_future(client.request(asking(), timeout=60))
        await slow.reached()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await settled()
        assert probe.seen.closes > 0
        assert not await client.left()
        assert len(running["far"].find(Begin)) == 0


@virtual_time
async def test_a_refresh_that_never_left_keeps_the_connection_and_what_to_close() -> None:
    async with two([Choose("inproc://far")], ("far", [])) as (client, running):
        await client.request(asking(), timeout=5)
        running["far"].kill()
        await running["far"].wait_ended()
        with pytest.raises(NotReached):
            await client.request(asking(), timeout=5)
        assert (await client.left()).slots == [NEXT_HOP.name]


@virtual_time
async def test_a_move_that_never_left_has_left_the_former_next_hop_all_the_same() -> None:
    choose = Choose("inproc://one")
    async with two([choose], ("one", [])) as (client, running):
        await client.request(asking(), timeout=5)
        choose.url = "inproc://nobody"
        with pytest.raises(NotReached):
            await client.request(asking(), timeout=5)
        assert len(running["one"].find(Begin)) == 0
        await client.close(timeout=5)
        assert not await client.left()


@virtual_time
async def test_that_the_next_hop_reached_nobody_proves_nothing_about_the_next_hop() -> None:
    probe = Probe()
    refuses = FailTimes(1, Unavailable("busy"), verb="close")
    further = [probe, Choose("inproc://nobody"), refuses, Connect(Dialer())]
    async with two([Choose("inproc://far")], ("far", further)) as (client, running):
        with pytest.raises(Unavailable, match="nobody answers") as caught:
            await client.request(asking(), timeout=5)
        assert not isinstance(caught.value, NotReached)
        assert caught.value.hop == "far"
        await settled()
        assert probe.seen.requests == 1
        assert probe.seen.closes > 1, "undone by the next hop itself, and closed by us"
        assert len(running["far"].find(Begin)) == 0
        assert not await client.left()


def test_no_answer_of_a_peer_is_a_call_that_never_left() -> None:
    for status in Status:
        assert not isinstance(from_status(status, "inproc://nobody: nobody answers"), NotReached)


@virtual_time
async def test_a_lost_answer_leaves_nothing_at_the_far_side() -> None:
    async with two([Choose("inproc://far"), Lose()], ("far", [Probe()])) as (client, running):
        with pytest.raises(Unavailable):
            await client.request(asking(), timeout=5)
        await settled()
        assert len(running["far"].find(Begin)) == 0
        assert not await client.left()


@virtual_time
async def test_a_connection_that_moves_leaves_its_former_next_hop() -> None:
    choose = Choose("inproc://one")
    async with two([choose], ("one", []), ("two", [])) as (client, running):
        await client.request(asking(), timeout=5)
        choose.url = "inproc://two"
        conn = await client.request(asking(), timeout=5)
        assert [segment.name for segment in conn.path.path_segments] == ["nsc", "two"]
        assert [len(running[name].find(Begin)) for name in ("one", "two")] == [0, 1]
        await client.close(timeout=5)
        assert len(running["two"].find(Begin)) == 0


@virtual_time
async def test_close_succeeds_with_the_next_hop_gone_and_stops_trying_when_its_token_is_over() -> None:
    async with two([Choose("inproc://far")], ("far", [])) as (client, running):
        await client.request(asking(), timeout=5)
        running["far"].kill()
        await running["far"].wait_ended()
        await client.close(timeout=5)
        assert (await client.left()).slots == [NEXT_HOP.name], "kept on purpose: closed again later"
    assert not client.running.runtime.running


@virtual_time
async def test_a_close_that_the_far_side_refuses_is_an_error() -> None:
    refuses = FailTimes(100, Unimplemented("no"), verb="close")
    async with two([Choose("inproc://far")], ("far", [refuses])) as (client, _):
        await client.request(asking(), timeout=5)
        with pytest.raises(Unimplemented, match="no") as caught:
            await client.close(timeout=5)
        assert caught.value.hop == "far"


@virtual_time
async def test_a_hop_that_was_restarted_passes_a_close_on_where_somebody_can_tell() -> None:
    class Remember(Element):
        async def close(self, call: Call, conn: Connection, next: Next) -> None:
            call.url = "inproc://far"
            await next.close(call, conn)

    async with two([Choose("inproc://far")], ("far", [])) as (client, running):
        conn = await client.request(asking(), timeout=5)
        async with rig(Chain("again", UpdatePath("nsc"), Begin(), Remember(), Connect(Dialer()))) as restarted:
            await restarted.close(conn, timeout=5)
        assert len(running["far"].find(Begin)) == 0


@virtual_time
async def test_a_guess_that_reaches_nobody_is_not_made_again() -> None:
    class Remember(Element):
        async def close(self, call: Call, conn: Connection, next: Next) -> None:
            call.url = "inproc://nobody"
            await next.close(call, conn)

    def beyond() -> Request:
        request = asking()
        request.connection.path.path_segments.add(name="nsc", id="c1")
        request.connection.path.path_segments.add(name="gone", id="c2")
        return request

    async with two([Choose("inproc://nobody"), Remember()]) as (client, _):
        with pytest.raises(NotReached):
            await client.request(beyond(), timeout=5)
        assert not await client.left()


def test_who_names_another_file_lives_elsewhere(tmp_path: Path) -> None:
    one, other, link, gone = (tmp_path / name for name in ("one", "other", "link", "gone"))
    one.touch()
    other.touch()
    link.hardlink_to(one)

    def elsewhere(known: str, *urls: str) -> bool:
        return is_elsewhere(urls, Connection(mechanism=Mechanism(parameters={"inodeURL": known})))

    assert elsewhere(one.as_uri(), other.as_uri())
    assert elsewhere(one.as_uri(), gone.as_uri())
    assert not elsewhere(one.as_uri(), other.as_uri(), link.as_uri())
    assert not elsewhere(gone.as_uri(), other.as_uri()), "a program that was started again in the same place"
    assert elsewhere("file:///of/another/machine", "file:///of/yet/another"), "neither can be seen from here"
    assert elsewhere("inode://4/1", "inode://4/2")
    assert not elsewhere("inode://4/1", "inode://4/1")
    assert not elsewhere("", other.as_uri())
    assert not elsewhere(one.as_uri())
    assert elsewhere(one.as_uri(), "file://[no/address")
