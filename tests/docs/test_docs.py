# SPDX-License-Identifier: Apache-2.0
"""Every example in the documents works: excerpts are what the files say, tests in them run, links lead somewhere.

A block of Python is an excerpt (its first line is `# path/file.py` or `# path/file.py: what it is`), or holds tests:
plain functions, also those of `virtual_time`, or coroutines, which get a loop of their own. A block that names
NAMESPACES or PROGRAMS is skipped, with the reason, where this machine has none.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.mark.structures import ParameterSet

from nsm_sdk.lab import NAMESPACES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS_NAMESPACES = re.compile(r"\b(NAMESPACES|PROGRAMS|PROGRAMS_TCP)\b")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
KINDS = {"python", "shell", "text", "mermaid"}
LINK = re.compile(r"\]\(([^)#]*)(#[^)]*)?\)")


def blocks() -> list[ParameterSet]:
    found = []
    for page in PAGES:
        for number, block in enumerate(BLOCK.findall(page.read_text()), 1):
            found.append(pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.mark.parametrize(("page", "block"), blocks())
def test_block(page: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, rest = block.partition("\n")
    excerpt = re.fullmatch(r"# (\S+\.py)(?::.*)?", first)
    if excerpt:
        source = (ROOT / excerpt[1]).read_text()
        assert rest.strip() in source, f"{page.name} shows something that {excerpt[1]} does not have"
        return
    if NEEDS_NAMESPACES.search(block) and (reason := NAMESPACES.why_not()):
        pytest.skip(reason)
    # A module like any other: elements look up the names of their annotations in it.
    module = ModuleType("example_of_the_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, str(page), "exec"), vars(module))
    tests = [value for name, value in vars(module).items() if name.startswith("test_") and inspect.isfunction(value)]
    assert tests, f"{page.name}: a block that is neither an excerpt nor a test cannot be trusted"
    for test in tests:
        if inspect.iscoroutinefunction(test):
            asyncio.run(test())
        else:
            test()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [(target, anchor) for target, anchor in LINK.findall(page.read_text()) if "://" not in target]
    broken = []
    for target, anchor in links:
        file = page.parent / target if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor[1:] not in _anchors(file)):
            broken.append(target + anchor)
    assert not broken


def _anchors(page: Path) -> set[str]:
    """What headings are called in links."""
    titles = re.findall(r"^#+ (.*)$", re.sub(FENCE, "", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_of_kinds_that_are_checked(page: Path) -> None:
    kinds = {kind for kind, _ in FENCE.findall(page.read_text())}
    assert kinds - {""} <= KINDS
    for kind, drawing in FENCE.findall(page.read_text()):
        if kind == "mermaid":
            assert re.match(r"flowchart (TD|LR)\n|sequenceDiagram\n|stateDiagram-v2\n", drawing)


def test_every_page_can_be_found() -> None:
    """From the README, by links."""
    found: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in found:
            continue
        found.add(page)
        for target, _ in LINK.findall(page.read_text()):
            linked = page.parent / target
            if "://" not in target and linked.is_dir():
                waiting += linked.glob("*.md")
            elif "://" not in target and linked.suffix == ".md" and linked.exists():
                waiting.append(linked)
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in found] == []
