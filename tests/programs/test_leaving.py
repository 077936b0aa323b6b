# SPDX-License-Identifier: Apache-2.0
"""Signals, exit statuses, addresses in use."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import anyio
import pytest

from nsm_sdk.api import NetworkServiceEndpoint
from nsm_sdk.core import Role
from nsm_sdk.transport import Dialer
from tests.programs.processes import NSM, PATIENCE, Mesh, environment

ROLES = ("registry", "nsmgr", "forwarder", "nse", "nsc")


async def test_each_role_leaves_with_0_and_leaves_nothing() -> None:
    async with Mesh() as mesh, mesh.connected() as processes:
        for process in reversed(processes):
            assert await process.stop() == 0
            assert process.lines[0]["event"] == "ready"
        # What is meant for the next start stays: the secret from which connection ids are derived.
        states = [mesh.folder / name for name in ("state", "state-nse", "state-nsmgr")]
        logs = [f"{n}-{role}.log" for n, role in enumerate(ROLES, 1)]
        assert sorted(os.listdir(mesh.folder)) == sorted([*logs, *(state.name for state in states)])
        assert [os.listdir(state) for state in states] == [["secret"]] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT], ids=str)
async def test_other_signals_do_the_same(number: signal.Signals) -> None:
    async with Mesh() as mesh:
        process = await mesh.start("nsmgr")
        await process.ready()
        assert await process.stop(number) == 0


@pytest.mark.parametrize("role", ROLES)
async def test_alone_each_role_is_ready_and_leaves_with_0(role: str) -> None:
    async with Mesh() as mesh:
        process = await mesh.start(role)
        ready = await process.ready()
        assert (ready["role"], ready["pid"]) == (role, process.pid)
        assert await process.stop() == 0


async def test_a_client_leaves_in_time_when_its_manager_is_dead() -> None:
    async with Mesh() as mesh, mesh.connected(shutdown_timeout="2s") as (_, nsmgr, *_, nsc):
        await nsmgr.kill()
        assert await nsc.stop() == 0


async def test_a_client_leaves_in_time_when_its_manager_hangs() -> None:
    async with Mesh() as mesh, mesh.connected(shutdown_timeout="1s") as (_, nsmgr, *_, nsc):
        nsmgr.send(signal.SIGSTOP)
        assert await nsc.stop() == 0


async def test_a_second_signal_leaves_at_once() -> None:
    async with Mesh() as mesh, mesh.connected(shutdown_timeout="1h") as (_, nsmgr, *_, nsc):
        nsmgr.send(signal.SIGSTOP)
        nsc.send(signal.SIGTERM)
        # The manager does not answer, so the client is still closing when the second one comes.
        nsc.send(signal.SIGINT)
        assert await nsc.ended() != 0


async def test_all_leave_when_the_registry_is_dead() -> None:
    async with Mesh() as mesh, mesh.connected() as (registry, nsmgr, forwarder, nse, nsc):
        await registry.kill()
        for process in (nsc, nse, forwarder, nsmgr):
            assert await process.stop() == 0


async def test_sixteen_callers_lose_nothing_while_a_registry_is_replaced() -> None:
    """SIGTERM, and another one at the same address: who calls all the time notices a pause."""
    dialer, url = Dialer(dial_timeout=PATIENCE), ""
    async with Mesh() as mesh, Role("client", services=[dialer]).serving() as client:
        url = mesh.socket("registry")
        done: dict[int, int] = {}
        over = False
        changed = asyncio.Event()

        async def caller(number: int) -> None:
            nse = dialer(url).nse
            assert nse is not None
            while not over:
                entry = NetworkServiceEndpoint(name=f"nse-{number}", network_service_names=["s"], url="unix:///x")
                await nse.register(client.call(timeout=PATIENCE), entry)
                done[number] = done.get(number, 0) + 1
                changed.set()

        async with anyio.create_task_group() as tasks:
            for registry in range(3):
                process = await mesh.start("registry")
                await process.ready()
                if not registry:
                    for number in range(16):
                        tasks.start_soon(caller, number)
                done.clear()
                while len(done) < 16 or min(done.values()) < 3:
                    changed.clear()
                    await changed.wait()
                over = registry == 2
                if not over:
                    assert await process.stop() == 0


async def test_a_port_in_use_is_told_without_a_ready_line() -> None:
    async with Mesh() as mesh:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            process = await mesh.start("registry", listen_on=url)
            assert await process.ended() != 0
        assert process.lines == []
        assert url in process.stderr
        assert "in use" in process.stderr


@pytest.mark.parametrize("role", ["registry", "nsmgr", "forwarder", "nse"])
async def test_a_socket_that_answers_is_in_use(role: str) -> None:
    async with Mesh() as mesh:
        first = await mesh.start(role)
        await first.ready()
        second = await mesh.start(role)
        assert await second.ended() not in (0, 2)
        assert second.lines == []
        assert "in use" in second.stderr
        assert await first.stop() == 0


async def test_one_bad_address_of_two_opens_neither() -> None:
    async with Mesh() as mesh:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            process = await mesh.start("nsmgr", listen_on=f"{mesh.manager},{url}")
            assert await process.ended() != 0
        assert process.lines == []
        assert not (mesh.folder / "nsmgr").exists()


async def test_a_stale_socket_is_replaced() -> None:
    async with Mesh() as mesh:
        first = await mesh.start("registry")
        await first.ready()
        await first.kill()
        assert (mesh.folder / "registry").is_socket()
        second = await mesh.start("registry")
        await second.ready()
        assert await second.stop() == 0
        assert not (mesh.folder / "registry").exists()


async def test_a_file_that_is_no_socket_is_left_alone() -> None:
    async with Mesh() as mesh:
        (mesh.folder / "registry").write_text("precious")
        process = await mesh.start("registry")
        assert await process.ended() != 0
        assert (mesh.folder / "registry").read_text() == "precious"


async def test_the_temporary_socket_of_an_endpoint_goes_with_it() -> None:
    async with Mesh() as mesh:
        nse = await mesh.start("nse", listen_on="")
        (url,) = (await nse.ready())["listen"]
        path = Path(url.removeprefix("unix://"))
        assert _is_socket(path)
        assert await nse.stop() == 0
        assert not _is_socket(path)


async def test_a_closed_stdout_does_not_end_the_program() -> None:
    async with Mesh() as mesh:
        read, write = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *_shell(mesh, "registry"), stdout=write, stderr=asyncio.subprocess.PIPE, env=_environment()
        )
        os.close(write)
        assert b'"ready"' in os.read(read, 4096)
        os.close(read)
        # Its registrations print event lines, to nobody.
        nsmgr, forwarder = await mesh.all("nsmgr", "forwarder")
        await forwarder.event("registered")
        process.terminate()
        _, err = await process.communicate()
        assert (process.returncode, b"Traceback" in err) == (0, False)
        getattr(process, "_transport").close()  # noqa: B009
        await nsmgr.stop()


async def test_without_any_standard_descriptor() -> None:
    """As a careless init system starts programs: 0, 1 and 2 are closed, and must not become sockets of ours."""
    async with Mesh() as mesh:
        command = " ".join(_shell(mesh, "registry"))
        process = await asyncio.create_subprocess_shell(f"exec {command} <&- >&- 2>&-", env=_environment())
        _, forwarder = await mesh.all("nsmgr", "forwarder")
        await forwarder.event("registered")
        process.terminate()
        assert await process.wait() == 0
        getattr(process, "_transport").close()  # noqa: B009
        await asyncio.sleep(0)


def _shell(mesh: Mesh, role: str) -> list[str]:
    return [*NSM, "run", role, "--set", f"NSM_LISTEN_ON={mesh.socket(role)}"]


def _is_socket(path: Path) -> bool:
    return path.is_socket()


def _environment() -> dict[str, str]:
    return environment()
