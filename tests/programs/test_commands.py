# SPDX-License-Identifier: Apache-2.0
"""The other commands, and the admin socket of a running program."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from nsm_sdk.netlink import probe_now
from tests.programs.processes import Mesh, nsm


async def _ask(path: Path, command: str) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"{command}\n".encode())
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return [json.loads(line) for line in raw.splitlines()]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_admin_socket_tells_what_a_client_has_and_what_happened() -> None:
    async with Mesh() as mesh:
        path = mesh.folder / "admin"
        async with mesh.connected(admin_socket=str(path)) as (*_, nsc):
            assert _mode(path) == 0o600
            (conn,) = await _ask(path, "connections")
            assert (conn["id"], conn["endpoint"], conn["state"]) == ("nsc-0", "icmp-server", "UP")
            assert await _ask(path, "registrations") == []
            assert [line["event"] for line in await _ask(path, "journal nsc-0")][-1] == "connected"
            status, out, _ = await nsm("explain", "nsc-0", "--socket", str(path))
            assert status == 0
            assert "connected" in out
            assert "icmp-server" in out
            status, out, _ = await nsm("explain", "--json", "--socket", str(path))
            assert [json.loads(line)["id"] for line in out.splitlines()] == ["nsc-0"]
            status, _, err = await nsm("explain", "nsc-7", "--socket", str(path))
            assert status == 1
            assert "nsc-7" in err
            assert await nsc.stop() == 0
            assert not path.exists()


@pytest.mark.parametrize("role", ["registry", "nsmgr", "forwarder", "nse"])
async def test_the_admin_socket_of_the_other_roles(role: str) -> None:
    async with Mesh() as mesh:
        path = mesh.folder / "admin"
        for other in ("registry", "nsmgr", "forwarder", "nse"):
            process = await mesh.start(other, admin_socket=str(path) if other == role else "")
            await process.event("registered" if other in ("forwarder", "nse") else "ready")
        nsc = await mesh.start("nsc")
        line = await nsc.event("connected")
        connections = await _ask(path, "connections")
        assert [conn["path"] for conn in connections] == ([] if role == "registry" else [line["path"]])
        registered = {item["id"] for item in await _ask(path, "registrations")}
        expected = {"forwarder": {"forwarder"}, "nse": {"icmp-server"}}
        assert registered == expected.get(role, {"forwarder", "icmp-server"})


async def test_explain_needs_somebody_who_answers(tmp_path: Path) -> None:
    status, _, err = await nsm("explain", "x", "--socket", str(tmp_path / "nobody"))
    assert status == 1
    assert "nobody answers" in err
    status, _, err = await nsm("explain", "x")
    assert status == 2
    assert "--socket" in err


@pytest.mark.parametrize("role", ["registry", "nsmgr", "forwarder", "nse", "nsc"])
async def test_the_chains_of_a_role_are_shown(role: str) -> None:
    status, out, err = await nsm("chain", "show", role)
    assert (status, err) == (0, "")
    assert "|- Begin(" in out
    status, out, _ = await nsm("chain", "show", role, "--mermaid")
    assert status == 0
    assert out.startswith("flowchart TD")


async def test_the_chains_of_nobody() -> None:
    status, out, err = await nsm("chain", "show", "nobody")
    assert (status, out) == (2, "")
    assert "nsmgr" in err


async def test_doctor_tells_what_can_be_built() -> None:
    found = probe_now()
    status, out, _ = await nsm("doctor", "--json")
    told = json.loads(out)
    assert status == (0 if found.mechanisms else 1)
    assert tuple(told["mechanisms"]) == found.mechanisms
    assert {one["name"]: one["works"] for one in told["found"]} == {one.name: one.works for one in found.found}
    _, out, _ = await nsm("doctor")
    assert "veth" in out


async def test_help_lists_the_commands() -> None:
    status, out, _ = await nsm("--help")
    assert status == 0
    for command in ("run", "doctor", "explain", "chain", "demo", "lab"):
        assert command in out
