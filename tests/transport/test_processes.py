# SPDX-License-Identifier: Apache-2.0
"""Peers in processes of their own, which vanish, freeze and come back.

Does:  SIGKILL and SIGSTOP against a real peer over both kinds of sockets.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from nsm_sdk.api import Connection, Request, Selector
from nsm_sdk.core import Bound, Role, Running
from nsm_sdk.errors import AlreadyExists, DeadlineExceeded, Unavailable
from tests.transport.adapters import address, dialing, every_socket, listening, role

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def process(adapter: str, url: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str], None]:
    """A peer that has said where it listens."""
    peer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.transport.peer", adapter, url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert peer.stdout is not None
        async with asyncio.timeout(20):
            yield peer, (await peer.stdout.readline()).decode().strip()
    finally:
        if peer.returncode is None:
            peer.kill()
        await peer.communicate()


@asynccontextmanager
async def client(adapter: str, url: str, dial_timeout: float) -> AsyncGenerator[tuple[Running, Bound], None]:
    dialer = dialing(adapter, dial_timeout=dial_timeout)
    async with Role("client", services=[dialer]).serving() as running:
        yield running, dialer(url)


async def request(running: Running, far: Bound, id: str = "", timeout: float = 15.0) -> Connection:
    assert far.connection is not None
    return await far.connection.request(running.call(timeout=timeout), Request(connection=Connection(id=id)))


async def on_a_new_connection(running: Running, far: Bound, id: str) -> Connection:
    """A request that asks again while it fails with the old connection."""
    while True:
        try:
            return await request(running, far, id)
        except Unavailable as error:
            if "the connection failed" not in error.message:
                raise


@every_socket
async def test_a_peer_that_is_killed_breaks_its_calls_and_is_found_again(adapter: str, tmp_path: Path) -> None:
    async with (
        process(adapter, address(adapter, tmp_path)) as (peer, url),
        client(adapter, url, dial_timeout=15.0) as (running, far),
    ):
        assert (await request(running, far, "a")).id == "a"
        assert far.monitor is not None
        async with aclosing(far.monitor.watch(running.call(timeout=15.0), Selector())) as stream:
            await anext(stream)
            hanging = asyncio.create_task(request(running, far, "hang"))
            assert peer.stdout is not None
            assert await peer.stdout.readline() == b"hanging\n"
            peer.kill()
            with pytest.raises(Unavailable, match="the connection failed") as caught:
                await hanging
            assert url in caught.value.message
            with pytest.raises(Unavailable):
                await anext(stream)
        # Our own client has heard, because the stream has ended; grpcio's hears in its own time.
        ask = on_a_new_connection if adapter.startswith("grpcio") else request
        waiting = asyncio.create_task(ask(running, far, "b"))
        # The socket file is still there: the peer had no time to remove it.
        async with process(adapter, url) as (_, again):
            assert again == url
            assert (await waiting).id == "b"


@every_socket
async def test_a_peer_that_vanished_is_unavailable_within_the_dial_timeout(adapter: str, tmp_path: Path) -> None:
    async with (
        process(adapter, address(adapter, tmp_path)) as (peer, url),
        client(adapter, url, dial_timeout=0.2) as (running, far),
    ):
        await request(running, far)
        peer.kill()
        await peer.wait()
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable, match=r"nobody answers|the connection failed"):
                await request(running, far)
            with pytest.raises(Unavailable, match="nobody answers"):
                await request(running, far)


@every_socket
async def test_a_frozen_peer_costs_a_new_caller_the_dial_timeout_and_an_old_one_its_deadline(
    adapter: str, tmp_path: Path
) -> None:
    async with (
        process(adapter, address(adapter, tmp_path)) as (peer, url),
        client(adapter, url, dial_timeout=0.3) as (running, far),
    ):
        await request(running, far)
        peer.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded, match="did not answer Request in time") as late:
                await request(running, far, timeout=0.5)
            assert late.value.hop == "client"
            async with asyncio.timeout(5), client(adapter, url, dial_timeout=0.3) as (other, same):
                with pytest.raises(Unavailable, match="nobody answers"):
                    await request(other, same)
                made, _ = role()
                with pytest.raises(AlreadyExists, match="address in use"):
                    async with made.serving(listen=[listening(adapter, url)]):
                        pass
        finally:
            peer.send_signal(signal.SIGCONT)
        assert (await request(running, far, "thawed")).id == "thawed"
