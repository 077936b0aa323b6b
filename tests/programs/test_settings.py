# SPDX-License-Identifier: Apache-2.0
"""Settings on the command line, in the environment, in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.programs.processes import Mesh, nsm

ROLES = ("registry", "nsmgr", "forwarder", "nse", "nsc")
SERVICES = {"NSM_NETWORK_SERVICES": "kernel://icmp-responder/nsm-1"}


async def test_flags_win_over_the_environment_and_that_over_the_file() -> None:
    async with Mesh() as mesh:
        file = mesh.folder / "env"
        file.write_text(f"# who\nNSM_NAME=file\nNSM_LISTEN_ON={mesh.socket('file')}\nNSM_LOG_FORMAT=json\n")
        process = await mesh.run("registry", "--env-file", str(file))
        ready = await process.ready()
        assert (ready["name"], ready["listen"]) == ("file", [mesh.socket("file")])
        assert await process.stop() == 0
        assert all(json.loads(line)["level"] for line in process.stderr.splitlines())
        process = await mesh.run("registry", "--env-file", str(file), env={"NSM_NAME": "environment"})
        assert (await process.ready())["name"] == "environment"
        assert await process.stop() == 0
        process = await mesh.run(
            "registry", f"--env-file={file}", "--set", "NSM_NAME=flag", env={"NSM_NAME": "environment"}
        )
        assert (await process.ready())["name"] == "flag"
        assert await process.stop() == 0


async def test_an_unknown_name_is_only_a_warning() -> None:
    async with Mesh() as mesh:
        process = await mesh.start("registry", env={"NSM_LISTEN": "x"})
        await process.ready()
        assert await process.stop() == 0
        (line,) = [line for line in process.stderr.splitlines() if "NSM_LISTEN " in line]
        assert "WARNING" in line
        assert "NSM_LISTEN_ON" in line


@pytest.mark.parametrize("role", ROLES)
async def test_help_lists_every_setting(role: str) -> None:
    status, out, _ = await nsm("run", role, "--help")
    assert status == 0
    for name in ("NSM_NAME", "NSM_IDENTITY", "NSM_SHUTDOWN_TIMEOUT", "NSM_ADMIN_SOCKET"):
        assert name in out
    assert ("NSM_NETWORK_SERVICES" in out) == (role == "nsc")


@pytest.mark.parametrize("role", ROLES)
async def test_check_validates_and_leaves(role: str) -> None:
    status, out, err = await nsm("run", role, "--check", env=SERVICES)
    assert (status, out, err) == (0, "", "")
    status, out, err = await nsm("run", role, "--check", "--set", "NSM_MAX_TOKEN_LIFETIME=soon", env=SERVICES)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    for part in ("NSM_MAX_TOKEN_LIFETIME", "soon", "duration"):
        assert part in err


@pytest.mark.parametrize("role", ROLES)
async def test_a_bad_value_ends_the_program_before_anything_is_opened(role: str, tmp_path: Path) -> None:
    admin = tmp_path / "admin"
    status, out, err = await nsm(
        "run", role, env={**SERVICES, "NSM_LOG_LEVEL": "LOUD", "NSM_ADMIN_SOCKET": str(admin)}, cwd=tmp_path
    )
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "NSM_LOG_LEVEL='LOUD'" in err
    assert not _names(tmp_path)


async def test_insecure_programs_listen_on_loopback_only_unless_told() -> None:
    async with Mesh() as mesh:
        process = await mesh.start("registry", listen_on="tcp://0.0.0.0:0", identity="insecure")
        assert await process.ended() == 2
        assert "NSM_ALLOW_INSECURE_LISTEN" in process.stderr
        process = await mesh.start("registry", listen_on="tcp://0.0.0.0:0", allow_insecure_listen="true")
        assert (await process.ready())["listen"][0].startswith("tcp://")
        assert await process.stop() == 0


@pytest.mark.parametrize(
    "arguments", [("run",), ("run", "nobody"), ("run", "nsc", "--wrong"), ("run", "nsc", "--set", "NAME=x"), ("what",)]
)
async def test_bad_usage(arguments: tuple[str, ...]) -> None:
    status, out, err = await nsm(*arguments)
    assert (status, out) == (2, "")
    assert err


async def test_a_role_is_found_behind_its_flags() -> None:
    status, out, err = await nsm("run", "--set", "NSM_NAME=nsc", "--check", "nsmgr")
    assert (status, out, err) == (0, "", "")


async def test_a_file_that_is_missing() -> None:
    status, out, err = await nsm("run", "registry", "--env-file", "/nowhere", "--check")
    assert (status, out) == (2, "")
    assert "/nowhere" in err


LONG = "/tmp/" + "é" * 51 + "x"
"""108 bytes, one more than the path of a unix socket may have; tests/cli goes through the settings of every role."""


@pytest.mark.parametrize(
    ("role", "name", "value"), [("registry", "NSM_ADMIN_SOCKET", LONG), ("nse", "NSM_CONNECT_TO", f"unix://{LONG}")]
)
async def test_a_path_that_is_too_long_for_a_socket(role: str, name: str, value: str) -> None:
    status, out, err = await nsm("run", role, env={name: value})
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    for part in (f"{name}={value!r}", "has 108 bytes", "at most 107"):
        assert part in err


async def test_explain_at_a_path_that_is_too_long() -> None:
    status, out, err = await nsm("explain", "--socket", LONG)
    assert (status, out) == (2, "")
    for part in ("--socket", "NSM_ADMIN_SOCKET", LONG, "has 108 bytes", "at most 107"):
        assert part in err


async def test_the_folder_of_temporary_files_may_be_too_long_for_a_socket(tmp_path: Path) -> None:
    """A program that takes a socket of its own choice still finds a place."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    async with Mesh() as mesh:
        process = await mesh.run("nse", env={"TMPDIR": str(folder), "NSM_DATAPATH": "simulated"})
        (listen,) = (await process.ready())["listen"]
        assert len(listen.removeprefix("unix://")) <= 107
        assert await process.stop() == 0
    assert not _names(folder)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
