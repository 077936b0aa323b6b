# SPDX-License-Identifier: Apache-2.0
"""`nsm demo`.

Does:  plays the story with real packets and without, live and as plain lines; the exit status tells the truth; nothing
       is left, also when it is interrupted.
Place: `nsm_sdk.cli.demo`, `nsm_sdk.lab.scenarios.first`.
State: processes, ended with the test.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from nsm_sdk.cli.demo import Screen
from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.lab import INPROC, NAMESPACES, Mode
from nsm_sdk.lab.scenarios.first import Step, Story, StoryError, first_connection
from nsm_sdk.netlink import list_namespaces
from nsm_sdk.testing import run_virtual
from tests.cli.command import nsm
from tests.mesh.modes import why_not

COMMAND = (sys.executable, "-m", "nsm_sdk.cli.main", "demo")


def play(mode: Mode) -> list[Step]:
    told: list[Step] = []
    steps = run_virtual(first_connection, mode, told.append)
    assert [step for step in told if step not in steps] == []
    return steps


def test_every_step_is_told_and_held() -> None:
    steps = play(INPROC)
    assert [step.title.partition(" ")[0] for step in steps] == [
        "Start",
        "Start",
        "Request",
        "Ping,",
        "Refresh",
        "Ping,",
        "Close",
        "End",
    ]
    assert all(step.ended and step.seconds is not None and not step.failed for step in steps)
    text = "\n".join(detail for step in steps for detail in step.details)
    for word in ("nsc-1 > nsmgr-node-1 > forwarder-node-1 > nse-1", "172.16.0.1/32", "172.16.0.0/32", "LOCAL KERNEL"):
        assert word in text


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert nsm("demo", "--simulated") == 0
    out = capsys.readouterr().out
    assert "simulated datapath" in out
    assert "\x1b" not in out
    assert "All of it held" in out


@pytest.mark.netns
def test_with_real_packets() -> None:
    if why_not(NAMESPACES):
        pytest.skip(why_not(NAMESPACES))
    before = set(list_namespaces("demo-"))
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No real packets" not in done.stdout
    assert "no namespace, interface, rule or socket file is left" in done.stdout
    assert done.stderr == ""
    assert set(list_namespaces("demo-")) <= before


def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    """Killed by SIGTERM in the middle: programs, sockets and namespaces are gone."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        (*COMMAND, "--programs", "--simulated"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Start registry" in line:
                process.send_signal(signal.SIGTERM)
                break
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "everything has been cleaned up" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_failure_shows_in_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nsm_sdk.lab import Cluster, Pod

    async def refuses(self: Cluster, name: str) -> Pod:
        raise FailedPrecondition("no pods today", hint="try tomorrow")

    monkeypatch.setattr(Cluster, "make_pod", refuses)
    assert nsm("demo", "--simulated") == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "failed: no pods today" in out
    assert "All of it held" not in out


def test_a_step_that_fails_is_shown_with_its_reason() -> None:
    text = io.StringIO()
    screen = Screen(Console(file=text, width=120))
    story = Story(screen.tell)
    with screen, pytest.raises(StoryError), story.step("Do it"):
        raise StoryError("it did not work", hint="do it again")
    assert "FAILED" in text.getvalue()
    assert "it did not work; do it again" in text.getvalue()


def test_a_terminal_shows_the_step_that_is_going_on() -> None:
    text = io.StringIO()
    screen = Screen(Console(file=text, width=120, force_terminal=True, _environ={"TERM": "xterm"}))
    story = Story(screen.tell)
    with screen, story.step("Do it") as step:
        assert "Do it" in text.getvalue()
        step.details.append("done")
    assert "ok" in text.getvalue()
    assert "done" in text.getvalue()


def test_a_pod_of_a_name_that_is_taken_fails_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    from nsm_sdk.lab import Cluster, Pod

    async def refuses(self: Cluster, name: str) -> Pod:
        raise FailedPrecondition("no pods today", hint="try tomorrow")

    monkeypatch.setattr(Cluster, "make_pod", refuses)
    told: list[Step] = []
    with pytest.raises(FailedPrecondition, match="no pods today"):
        run_virtual(first_connection, INPROC, told.append)
    assert told[-1].failed.startswith("no pods today")
