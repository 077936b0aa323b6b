# SPDX-License-Identifier: Apache-2.0
"""Beside peers that pass files as descriptors, which we do not: nothing ever waits for one.

Does:  lets a peer answer with the inode of a namespace, as Go programs do on unix sockets, and hang on each inode that
       is sent to it without a descriptor; then requests, refreshes, heals and closes.
Place: nsm_sdk.elements.connect, nsm_sdk.elements.connect, nsm_sdk.mechanisms.kernel, nsm_sdk.heal.resume.
State: none.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from nsm_sdk.api import KERNEL, MEMIF, Connection, Mechanism, Request
from nsm_sdk.core import Call, Chain, Element, Next, Role
from nsm_sdk.elements import Begin, Connect, Hub, Monitor, Refresh, UpdatePath, Watch
from nsm_sdk.elements.connect import ClientUrl
from nsm_sdk.heal import Heal, Resume
from nsm_sdk.mechanisms import KernelClient
from nsm_sdk.mechanisms.kernel import own_namespace
from nsm_sdk.testing import Rig, VirtualClock, current_clock, rig, settled, virtual_time
from nsm_sdk.transport import Dialer, listen

HERE = own_namespace()
FILE = "inodeURL"


def first() -> Request:
    return Request(connection=Connection(id="c1", network_service="ns"))


def inode(path: str) -> str:
    found = os.stat(path)
    return f"inode://{found.st_dev}/{found.st_ino}"


class GoHop(Element):
    """Names files by inode in its answers, and waits for ever for the descriptor of one that it reads."""

    def __init__(self, *, gives: str = "") -> None:
        self.gives = gives
        """What it answers with; empty: the inode of the file that was asked with."""
        self.asked: list[str] = []
        self.closed: list[str] = []

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        mechanisms = [*request.mechanism_preferences, *([conn.mechanism] if conn.HasField("mechanism") else [])]
        await self._read(mechanisms)
        if not conn.HasField("mechanism"):
            conn.mechanism.CopyFrom(request.mechanism_preferences[0])
        url = conn.mechanism.parameters.get(FILE, "")
        self.asked.append(url)
        answer = await next.request(call, request)
        if self.gives or url:
            answer.mechanism.parameters[FILE] = self.gives or inode(url.removeprefix("file://"))
        return answer

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        await self._read([conn.mechanism])
        self.closed.append(conn.mechanism.parameters.get(FILE, ""))
        await next.close(call, conn)

    async def _read(self, mechanisms: list[Mechanism]) -> None:
        if any(one.parameters.get(FILE, "").startswith("inode://") for one in mechanisms):
            await anyio.sleep_forever()


@asynccontextmanager
async def beside(hop: GoHop, *near: Element) -> AsyncGenerator[Rig, None]:
    """A client of a manager that is such a hop."""
    hub = Hub()
    manager = Role(
        "manager",
        connection=Chain("manager", UpdatePath("manager", opens=False), hop, Begin(), Monitor(hub)),
        monitor=Chain("monitor", Watch(hub)),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            manager.serving(listen=[listen("inproc://manager")], clock=current_clock(), drain=0.0)
        )
        elements = near or (UpdatePath("nsc"), Begin(merges=True), Refresh(), ClientUrl("inproc://manager"), Heal())
        chain = Chain("nsc", *elements, KernelClient(), Connect(Dialer()))
        yield await stack.enter_async_context(rig(chain))


@virtual_time
async def test_requests_and_closes_name_the_namespace_as_it_was_asked_for() -> None:
    hop = GoHop()
    async with beside(hop) as client:
        conn = await client.request(first(), timeout=5)
        assert conn.mechanism.parameters[FILE] == HERE
        again = await client.request(Request(connection=conn), timeout=5)
        assert again.mechanism.parameters[FILE] == HERE
        await client.close(conn, timeout=5)
    assert hop.asked == [HERE, HERE]
    assert hop.closed == [HERE]


@pytest.mark.parametrize("gives", ["inode://4/4026531833", "inode://4/1"])
@virtual_time
async def test_also_where_the_manager_sees_the_namespace_in_another_way(gives: str) -> None:
    hop = GoHop(gives=gives)
    async with beside(hop) as client:
        conn = await client.request(first(), timeout=5)
        assert conn.mechanism.parameters[FILE] == HERE
        await client.request(Request(connection=conn), timeout=5)
        await client.close(conn, timeout=5)
    assert hop.asked == [HERE, HERE]
    assert hop.closed == [HERE]


@virtual_time
async def test_selecting_anew_closes_and_asks_with_the_same() -> None:
    hop = GoHop()

    class Anew(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            self.events = call.events
            return await next.request(call, request)

    anew = Anew()
    near = (UpdatePath("nsc"), Begin(merges=True), ClientUrl("inproc://manager"), anew)
    async with beside(hop, *near) as client:
        await client.request(first(), timeout=5)
        anew.events.refresh()
        await VirtualClock().advance(6)
        anew.events.reselect()
        await VirtualClock().advance(6)
        assert hop.asked == [HERE] * 3
        assert hop.closed == [HERE]
        await client.close(Connection(id="c1"), timeout=5)


@virtual_time
async def test_a_connection_of_an_earlier_run_is_taken_up_and_closed() -> None:
    hop = GoHop()
    dialer = Dialer()
    async with beside(hop) as client:
        await client.request(first(), timeout=5)
        await settled()
        resume = Resume("nsc", manager="inproc://manager", dial=dialer, heal=Heal())
        later = Chain(
            "nsc", resume, UpdatePath("nsc"), Begin(merges=True), ClientUrl("inproc://manager"), KernelClient(),
            Connect(dialer),
        )  # fmt: skip
        async with rig(later) as second:
            taken = await second.request(first(), timeout=5)
            assert taken.mechanism.parameters[FILE] == HERE
            await second.close(taken, timeout=5)
    assert hop.asked == [HERE, HERE]
    assert set(hop.closed) == {HERE}


@virtual_time
async def test_a_connection_found_at_the_manager_can_be_closed_by_a_client_that_never_asked_for_it() -> None:
    hop = GoHop()
    async with beside(hop) as client:
        conn = await client.request(first(), timeout=5)
        found = Connection()
        found.CopyFrom(conn)
        found.mechanism.parameters[FILE] = "inode://4/4026531833"

        class Last(Element):
            closed = ""

            async def close(self, call: Call, conn: Connection, next: Next) -> None:
                self.closed = conn.mechanism.parameters[FILE]
                await next.close(call, conn)

        last = Last()
        async with rig(Begin(), KernelClient(), last) as second:
            await second.close(found, timeout=5)
        assert last.closed == HERE
        await client.close(conn, timeout=5)


@virtual_time
async def test_a_file_of_the_next_hops_own_is_not_sent_back_to_it() -> None:
    # A forwarder does not name the namespace of the endpoint; it comes with the answer.
    hop = GoHop(gives="inode://4/4026531999")
    near = (UpdatePath("fwd"), Begin(merges=True), ClientUrl("inproc://manager"))
    async with AsyncExitStack() as stack:
        role = Role("nse", connection=Chain("nse", UpdatePath("nse", opens=False), hop, Begin()))
        await stack.enter_async_context(role.serving(listen=[listen("inproc://manager")], clock=current_clock()))
        client = await stack.enter_async_context(rig(Chain("fwd", *near, Connect(Dialer()))))
        request = Request(mechanism_preferences=[Mechanism(cls="LOCAL", type=KERNEL)])
        request.connection.id = "c1"
        conn = await client.request(request, timeout=5)
        assert conn.mechanism.parameters[FILE] == "inode://4/4026531999"
        conn = await client.request(Request(connection=conn), timeout=5)
        assert conn.mechanism.parameters[FILE] == "inode://4/4026531999"
        await client.close(conn, timeout=5)
    assert hop.asked == ["", ""]
    assert hop.closed == [""]


@virtual_time
async def test_the_file_that_was_asked_with_is_known_by_its_inode(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other file"
    one.touch()
    other.touch()
    hop = GoHop(gives=inode(str(other)))
    async with AsyncExitStack() as stack:
        role = Role("manager", connection=Chain("manager", UpdatePath("manager", opens=False), hop, Begin()))
        await stack.enter_async_context(role.serving(listen=[listen("inproc://manager")], clock=current_clock()))
        chain = Chain("nsc", UpdatePath("nsc"), Begin(), ClientUrl("inproc://manager"), Connect(Dialer()))
        client = await stack.enter_async_context(rig(chain))
        request = Request()
        request.connection.id = "c1"
        for path in (one, other):
            request.mechanism_preferences.add(cls="LOCAL", type=MEMIF, parameters={FILE: path.as_uri()})
        conn = await client.request(request, timeout=5)
        assert conn.mechanism.parameters[FILE] == other.as_uri()
        await client.close(conn, timeout=5)
    assert hop.closed == [other.as_uri()]


@virtual_time
async def test_a_preference_that_names_no_file_keeps_nobody_from_connecting(tmp_path: Path) -> None:
    hop = GoHop(gives=inode(str(tmp_path)))
    elements = UpdatePath("nsc"), Begin(), ClientUrl("inproc://manager"), Connect(Dialer())
    async with AsyncExitStack() as stack:
        role = Role("manager", connection=Chain("manager", UpdatePath("manager", opens=False), hop, Begin()))
        await stack.enter_async_context(role.serving(listen=[listen("inproc://manager")], clock=current_clock()))
        client = await stack.enter_async_context(rig(Chain("nsc", *elements)))
        request = first()
        for url in ("file://[no/address", tmp_path.as_uri()):
            request.mechanism_preferences.add(cls="LOCAL", type=MEMIF, parameters={FILE: url})
        conn = await client.request(request, timeout=5)
        assert conn.mechanism.parameters[FILE] == tmp_path.as_uri()
        await client.close(conn, timeout=5)


@virtual_time
async def test_what_a_go_caller_names_by_inode_passes_a_hop_between() -> None:
    class Echo(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            if not request.connection.HasField("mechanism"):
                request.connection.mechanism.CopyFrom(request.mechanism_preferences[0])
            seen.append(request.connection.mechanism.parameters[FILE])
            return await next.request(call, request)

    seen: list[str] = []
    async with AsyncExitStack() as stack:
        role = Role("fwd", connection=Chain("fwd", UpdatePath("fwd", opens=False), Begin(), Echo()))
        await stack.enter_async_context(role.serving(listen=[listen("inproc://fwd")], clock=current_clock()))
        chain = Chain("manager", UpdatePath("manager"), Begin(), ClientUrl("inproc://fwd"), Connect(Dialer()))
        client = await stack.enter_async_context(rig(chain))
        request = Request(mechanism_preferences=[Mechanism(cls="LOCAL", type=KERNEL, parameters={FILE: "inode://4/5"})])
        request.connection.id = "c1"
        conn = await client.request(request, timeout=5)
        request.connection.CopyFrom(conn)
        await client.request(request, timeout=5)
        await client.close(conn, timeout=5)
    assert seen == ["inode://4/5"] * 2
