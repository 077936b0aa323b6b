# SPDX-License-Identifier: Apache-2.0
"""Every command in the documents works as written: the walk-throughs as processes, all others as far as they can be
checked without a mesh. Ports, folders of their own and namespaces are put in the place of the written ones."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from nsm_sdk.cli.roles import SUMMARIES
from nsm_sdk.lab import PROGRAMS
from nsm_sdk.netlink import delete_namespace, list_namespaces
from tests.cli.command import nsm
from tests.docs.commands import ROOT, Command, Terminal
from tests.run import unique

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
TUTORIAL = ROOT / "docs" / "tutorial" / "first-endpoint.md"
MESH = ROOT / "docs" / "how-to" / "run-a-mesh.md"
EXAMPLES = ROOT / "examples" / "README.md"
BLOCK = re.compile(r"^```shell\n(.*?)^```", re.MULTILINE | re.DOTALL)
LASTING = {"registry", "nsmgr", "forwarder", "nse"}


def commands(page: Path, section: str = "") -> list[str]:
    """The commands of a page, or of one of its sections, each on one line."""
    text = page.read_text()
    if section:
        text = re.split(r"^## ", text.partition(f"\n## {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in found if line.strip()]


class Instead:
    """What stands for ports, folders and namespaces of the documents in this run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, str] = {}
        self.spaces: dict[str, str] = {}

    def __call__(self, command: str) -> list[str]:
        command = re.sub(r":(5\d\d\d)\b", lambda found: f":{self._port(found[1])}", command)
        command = command.replace("/tmp/", f"{self._folder}/")
        for written, ours in self.spaces.items():
            command = re.sub(rf"\b{written}\b", ours, command)
        return shlex.split(command)

    def _port(self, written: str) -> str:
        if written not in self._ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._ports[written] = str(free.getsockname()[1])
        return self._ports[written]


async def follow(terminal: Terminal, instead: Instead, page: Path, lines: list[str]) -> list[Command]:
    """Run commands one after the other. Hops are all started, in any order as the pages say, before what follows."""
    waits: list[tuple[Command, str]] = []
    for line in lines:
        if not line.startswith(("nsm run", "python examples")):
            await _said(waits)
        match instead(line):
            case ["make", target]:
                assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            case [".", ".venv/bin/activate"]:
                pass
            case ["python", "-m", "pytest", name]:
                await _pytest(terminal, page, name)
            case ["nsm", "run", role, *_] as words:
                waits.append((await terminal.run(*words), '"ready"' if role in LASTING else '"connected"'))
            case ["python", script, *_] as words if script.endswith("nse.py"):
                waits.append((await terminal.run(*words), "serving"))
            case words:
                ended = await terminal.run(*words)
                assert await ended.ended() == 0, str(ended)
                assert ended.lines or words[0] == "ip", "it says nothing"
    await _said(waits)
    return terminal.commands


async def _said(waits: list[tuple[Command, str]]) -> None:
    for command, text in waits:
        await command.says(text)
    waits.clear()


def _written(page: Path, file: Path) -> None:
    """The page's first block with a test, as the file that the page tells to write."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    file.write_text(next(block for block in blocks if "def test_" in block))


def _shown(page: Path) -> list[str]:
    """What the page shows as output, the last time."""
    shown: list[str] = re.findall(r"^```text\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return shown[-1].splitlines()


async def _pytest(terminal: Terminal, page: Path, name: str) -> None:
    file = terminal.folder / name
    _written(page, file)
    options = ("-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT))
    done = await terminal.run("python", "-m", "pytest", *options, str(file))
    assert await done.ended() == 0, str(done)
    assert "1 passed" in done.lines[-1]


@pytest.mark.slow
async def test_the_tutorial(tmp_path: Path) -> None:
    async with Terminal(tmp_path) as terminal:
        *_, nsc = await follow(terminal, Instead(tmp_path), TUTORIAL, commands(TUTORIAL))
        assert nsc.lines == _shown(TUTORIAL)


@pytest.mark.slow
async def test_a_mesh_of_programs(tmp_path: Path) -> None:
    instead = Instead(tmp_path)
    lines = commands(MESH, "Run the hops as programs") + commands(MESH, "Look inside")
    async with Terminal(tmp_path) as terminal:
        *_, nsc, doctor, chain, explained, story = await follow(terminal, instead, MESH, lines)
        connected = json.loads(nsc.lines[-1])
        assert (connected["interface"], connected["src"], connected["dst"]) == (
            "nsm-1",
            ["172.16.0.1/32"],
            ["172.16.0.0/32"],
        )
        assert connected["path"] == ["nsc", "nsmgr", "forwarder", "icmp-server"]
        assert "veth" in " ".join(doctor.lines)
        assert "DiscoverForwarder" in " ".join(chain.lines)
        assert "nsc-0" in " ".join(explained.lines)
        assert any("connected" in line and "172.16.0.1/32" in line for line in story.lines)


@pytest.fixture
def spaces() -> Iterator[dict[str, str]]:
    """Names for the namespaces of the page; what is left of them goes."""
    reason = PROGRAMS.why_not() or ("" if shutil.which("ip") else "there is no `ip` command")
    if reason:
        pytest.skip(reason)
    names = {"blue": unique("blue"), "green": unique("green")}
    yield names
    for name in names.values():
        delete_namespace(name)


@pytest.mark.netns
@pytest.mark.slow
async def test_a_mesh_with_real_packets(tmp_path: Path, spaces: dict[str, str]) -> None:
    instead = Instead(tmp_path)
    instead.spaces = spaces
    *lines, delete_blue, delete_green = commands(MESH, "With real packets")
    async with Terminal(tmp_path) as terminal:
        # Where they keep their records is the machine's, not ours.
        keeping = ("nsmgr", "forwarder", "nse")
        lines = [
            line + "".join(f" --set NSM_STATE_DIR=/tmp/state-{role}" for role in keeping if f"run {role}" in line)
            for line in lines
        ]
        await follow(terminal, instead, MESH, lines)
        address = await terminal.run(*instead("ip -n green addr"))
        assert await address.ended() == 0
        assert any("nsm-1" in line for line in address.lines)
        assert any("172.16.0.1/32" in line for line in address.lines)
    async with Terminal(tmp_path) as terminal:
        await follow(terminal, instead, MESH, [delete_blue, delete_green])
    assert not set(spaces.values()) & set(list_namespaces())


@pytest.mark.slow
async def test_the_examples(tmp_path: Path) -> None:
    async with Terminal(tmp_path) as terminal:
        for line in commands(EXAMPLES):
            await terminal.run(*shlex.split(line))
        for command in terminal.commands:
            assert await command.ended() == 0, str(command)
            assert command.lines, "it says nothing"


def others() -> list[ParameterSet]:
    return [
        pytest.param(line, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        if page not in (TUTORIAL, MESH, EXAMPLES)
        for number, line in enumerate(commands(page), 1)
    ]


@pytest.mark.parametrize("line", others())
def test_what_other_pages_tell_to_type(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    match shlex.split(line):
        case ["nsm", "run", *words]:
            assert nsm("run", *words, "--check") == 0
            assert capsys.readouterr().err == ""
        case ["make", target]:
            assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["nsm", "chain", "show", role, *_]:
            assert role in SUMMARIES
        case ["nsm", "doctor" | "demo" | "explain"] | ["nsm", "demo", "heal"]:
            pass
        case ["python", script, *_] if script != "-m":
            assert (ROOT / script).exists()
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None
        case _:
            pytest.fail(f"nothing here knows how to check {line!r}")
