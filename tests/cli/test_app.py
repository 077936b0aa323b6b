# SPDX-License-Identifier: Apache-2.0
"""The command line: one look, one library, little to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nsm_sdk
from nsm_sdk.cli import roles
from tests.cli.command import nsm

PACKAGE = Path(nsm_sdk.__file__).parent


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert nsm("--version") == 0
    assert capsys.readouterr().out == f"nsm {nsm_sdk.__version__}\n"


def test_there_is_one_command_line_library() -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if "argparse" in path.read_text()] == []


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_neither_the_library_nor_a_loop(words: list[str]) -> None:
    code = (
        "import sys; sys.argv[0] = 'nsm'\n"
        "from nsm_sdk.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    found = {'google.protobuf', 'asyncio', 'nsm_sdk.core'} & set(sys.modules)\n"
        "    sys.exit(', '.join(sorted(found)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nsm_sdk.cli.main"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "_NSM_COMPLETE": f"complete_{shell}", "COMP_WORDS": "nsm run n", "COMP_CWORD": "2",
             "_TYPER_COMPLETE_ARGS": "nsm run n", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    )  # fmt: skip
    for role in roles.SUMMARIES:
        assert (role in done.stdout) == role.startswith("n")


@pytest.mark.parametrize("help", ["-h", "--help"])
@pytest.mark.parametrize("role", sorted(roles.SUMMARIES))
def test_the_help_of_a_role_is_about_that_role(role: str, help: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert nsm("run", role, help) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: nsm run {role} ")
    assert " ".join(out.split()).count(roles.SUMMARIES[role]) == 1
    assert "NSM_LOG_LEVEL  (INFO)\n" in out
    assert "--env-file" in out


def test_the_help_of_run_lists_the_roles(capsys: pytest.CaptureFixture[str]) -> None:
    assert nsm("run", "--help") == 0
    out = " ".join(capsys.readouterr().out.split())
    for role, summary in roles.SUMMARIES.items():
        assert role in out
        assert summary in out


def test_a_role_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert nsm("run", "router", "--check") == 2
    assert capsys.readouterr().err == (f"nsm run: unknown role 'router': expected {', '.join(roles.SUMMARIES)}\n")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["demo", "--no-such-option"], "--no-such-option"),
        (["demo", "--simulated", "heal"], "heal"),
        (["demo", "burn"], "burn"),
        (["demo", "heal", "nonsense"], "choose from"),
        (["lab", "--clients", "0"], "--clients"),
        (["lab", "--clients", "65"], "--clients"),
        (["lab", "--endpoints", "many"], "--endpoints"),
        (["run", "nse", "--set"], "--set"),
        (["explain", "nsc-0"], "--socket"),
    ],
)  # fmt: skip
def test_bad_usage(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert nsm(*words) == 2
    seen = capsys.readouterr()
    assert part in seen.err
    assert seen.out == ""
    assert "\x1b" not in seen.err
