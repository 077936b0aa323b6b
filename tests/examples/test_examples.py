# SPDX-License-Identifier: Apache-2.0
"""Every example runs, its own assertions hold, and it says something."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from nsm_sdk.lab import INPROC, MEMORY, NAMESPACES, UNIX, Mode

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODES: dict[str, tuple[Mode, ...]] = {
    "custom_element": (INPROC,),
    "excluded_addresses": (INPROC,),
    "heal_with_a_probe": (MEMORY, NAMESPACES),
    "kernel_to_kernel": (MEMORY, NAMESPACES),
    "own_server": (UNIX,),
    "passthrough": (MEMORY, NAMESPACES),
    "two_services": (INPROC,),
}
RUNS = [
    pytest.param(name, mode, id=f"{name}-{mode.ground}", marks=[pytest.mark.netns] if mode is NAMESPACES else [])
    for name, modes in MODES.items()
    for mode in modes
]


def load(name: str) -> ModuleType:
    return importlib.import_module(f"examples.{name}.run")


@pytest.mark.parametrize(("name", "mode"), RUNS)
async def test_it_runs(name: str, mode: Mode, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := mode.why_not():
        pytest.skip(reason)
    await load(name).main(mode)
    said = capsys.readouterr()
    assert said.out.strip()
    assert said.err == ""


def test_chains_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    load("print_chains").main()
    said = capsys.readouterr().out
    assert "flowchart TD" in said
    assert "|- Begin(" in said


def test_each_is_listed_and_run() -> None:
    """A folder that nothing runs would rot; one that is not listed nobody finds."""
    folders = {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}
    assert folders == {*MODES, "print_chains", "first_endpoint"}
    listed = (EXAMPLES / "README.md").read_text()
    for name in folders:
        assert f"]({name}/" in listed


@pytest.mark.parametrize("name", [*MODES, "print_chains"])
def test_each_says_what_it_shows_and_asserts_it(name: str) -> None:
    module = load(name)
    assert (module.__doc__ or "").strip()
    assert "assert " in inspect.getsource(module)
