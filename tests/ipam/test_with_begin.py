# SPDX-License-Identifier: Apache-2.0
"""IPAM elements below the real `Begin`, in a role that is served.

Does:  cancels, fails, restarts and reselects, and looks at what is free afterwards.
Place: tests of `nsm_sdk.ipam` with `nsm_sdk.elements`.
State: none.
"""

from __future__ import annotations

import asyncio

import anyio
import pytest

from nsm_sdk.api import Connection, Request, State
from nsm_sdk.core import Call, Chain, Element, Next, Role, Running
from nsm_sdk.elements.begin import Begin
from nsm_sdk.errors import Exhausted, ServingTwice, Unavailable
from nsm_sdk.ipam import ipam_chain


class Gate(Element):
    """Fails or hangs, on demand; tells when a close has come through."""

    def __init__(self) -> None:
        self.fails = False
        self.hangs = False
        self.reached = asyncio.Event()
        self.closed = asyncio.Event()

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self.reached.set()
        if self.fails:
            raise Unavailable("nobody is there")
        if self.hangs:
            await anyio.sleep_forever()
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        await next.close(call, conn)
        self.closed.set()


def _role(gate: Gate) -> Role:
    return Role("nse", connection=Chain("nse", Begin(), ipam_chain([["10.0.0.0/30"], ["fd00::/126"]]), gate))


async def _request(running: Running, id_: str, conn: Connection | None = None) -> Connection:
    request = Request()
    if conn is not None:
        request.connection.CopyFrom(conn)
    request.connection.id = id_
    assert running.bound.connection is not None
    return await running.bound.connection.request(running.call(timeout=5), request)


def _first(conn: Connection) -> list[str]:
    return list(conn.context.ip_context.src_ip_addrs)


FIRST = ["10.0.0.1/32", "fd00::1/128"]


async def test_failed_and_cancelled_requests_leak_nothing() -> None:
    gate = Gate()
    async with _role(gate).serving() as running:
        gate.fails = True
        for number in range(5):
            with pytest.raises(Unavailable):
                await _request(running, f"failed {number}")
            await gate.closed.wait()
            gate.closed.clear()
        gate.fails, gate.hangs = False, True
        for number in range(5):
            gate.reached.clear()
            task = asyncio.create_task(_request(running, f"cancelled {number}"))
            await gate.reached.wait()
            task.cancel()
            await gate.closed.wait()
            gate.closed.clear()
            await asyncio.wait([task])
            assert task.cancelled()
        gate.hangs = False
        assert _first(await _request(running, "last")) == FIRST


async def test_a_pool_that_is_served_is_not_served_twice() -> None:
    role = _role(Gate())
    async with role.serving() as running:
        assert role.connection is not None
        pools = role.connection.all_services()
        assert len(pools) >= 2
        for pool in pools:
            with pytest.raises(ServingTwice):
                await pool.acquire(running.runtime)


async def test_a_role_served_again_starts_with_everything_free() -> None:
    role = _role(Gate())
    async with role.serving() as running:
        old = await _request(running, "a")
        await _request(running, "b")
    async with role.serving() as running:
        back = await _request(running, "back", old)
        assert _first(back) == _first(old)
        assert _first(await _request(running, "b")) == ["10.0.0.3/32", "fd00::3/128"]
        with pytest.raises(Exhausted):
            await _request(running, "a", back)


async def test_a_reselect_gives_the_same_addresses_if_nobody_took_them() -> None:
    async with _role(Gate()).serving() as running:
        first = await _request(running, "a")
        again = Connection()
        again.CopyFrom(first)
        again.state = State.RESELECT_REQUESTED
        assert _first(await _request(running, "a", again)) == _first(first)
        assert len(_first(await _request(running, "b"))) == 2
