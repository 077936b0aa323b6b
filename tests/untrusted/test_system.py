# SPDX-License-Identifier: Apache-2.0
"""Programs that the operating system refuses something.

Does:  takes a running program all descriptors that it does not use yet, and gives them back: what is connected goes on,
       what is new is refused, and afterwards it is served. A forwarder whose state folder cannot be used says so.
Place: `nsm run registry`, `nsm run forwarder`.
State: programs of one test.
"""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from nsm_sdk.api import NS_FIND, NetworkService, NetworkServiceQuery
from tests.programs.processes import Mesh

_FAST = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
ANY = NetworkServiceQuery(network_service=NetworkService(name="svc")).SerializeToString()


async def find(channel: Any, timeout: float) -> grpc.StatusCode:
    """One Find over the channel; its status."""
    call = channel.unary_stream(NS_FIND.path)(ANY, timeout=timeout, wait_for_ready=True)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the limits of another process")
async def test_a_program_without_descriptors_keeps_what_it_has_and_recovers() -> None:
    async with Mesh() as programs, AsyncExitStack() as channels:
        registry = await programs.start("registry")
        (url,) = (await registry.ready())["listen"]

        async def channel() -> Any:
            target = url.replace("unix://", "unix:")
            options = [*_FAST, ("grpc.use_local_subchannel_pool", 1)]
            return await channels.enter_async_context(grpc.aio.insecure_channel(target, options=options))

        old = await channel()
        assert await find(old, 5) is grpc.StatusCode.OK
        highest = max(int(name) for name in os.listdir(f"/proc/{registry.pid}/fd"))
        before = resource.prlimit(registry.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(registry.pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        fresh = [await channel() for _ in range(8)]
        statuses = await asyncio.gather(*(find(one, 1.0) for one in fresh))
        assert any(status is not grpc.StatusCode.OK for status in statuses)
        assert await find(old, 5) is grpc.StatusCode.OK
        resource.prlimit(registry.pid, resource.RLIMIT_NOFILE, before)
        assert await asyncio.gather(*(find(one, 10.0) for one in fresh)) == [grpc.StatusCode.OK] * 8
        assert await registry.stop() == 0
        assert "unexpected" not in registry.stderr
        assert "Traceback" not in registry.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a kernel datapath needs root")
async def test_a_forwarder_that_cannot_keep_records_says_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.symlink_to(tmp_path / "nothing")
    async with Mesh() as programs:
        forwarder = await programs.start("forwarder", datapath="kernel", state_dir=str(state))
        assert await forwarder.ended() != 0
        assert "NSM_STATE_DIR" in forwarder.stderr
        assert "Traceback" not in forwarder.stderr
