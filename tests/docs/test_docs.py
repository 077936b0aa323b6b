# SPDX-License-Identifier: Apache-2.0
"""Every example in the documents works: excerpts are what the files say, tests in them run, links lead somewhere."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.mark.structures import ParameterSet

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")


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
    # A module like any other: elements look up the names of their annotations in it.
    module = ModuleType("example_of_the_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, str(page), "exec"), vars(module))
    tests = [value for name, value in vars(module).items() if name.startswith("test_") and inspect.isfunction(value)]
    assert tests, f"{page.name}: a block that is neither an excerpt nor a test cannot be trusted"
    for test in tests:
        test()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [target for target, _ in LINK.findall(page.read_text()) if "://" not in target]
    broken = [target for target in links if not (page.parent / target).exists()]
    assert not broken
