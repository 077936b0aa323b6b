# SPDX-License-Identifier: Apache-2.0
"""Everything public says what it is: modules, exported classes and functions, their public methods, their fields."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nsm_sdk
from tools.generate_reference import exported, own_doc, rooms

PACKAGE = Path(nsm_sdk.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_gen" not in path.parts)
ROOMS = [name for name, _ in rooms()]


def room(name: str) -> ModuleType:
    return importlib.import_module(f"nsm_sdk.{name}")


def _is_ours(value: Any) -> bool:
    """Messages and enumerations of the wire protocol are made from the .proto files, and documented there."""
    module = getattr(value, "__module__", None) or ""
    return module.startswith("nsm_sdk.") and "._gen" not in module


def _says_nothing(owner: type[Any], name: str, member: Any) -> bool:
    function = getattr(member, "fget", None) or getattr(member, "__func__", None) or getattr(member, "func", member)
    if not inspect.isfunction(function) or (function.__doc__ or "").strip():
        return False
    # What overrides something documented is documented.
    return not any((getattr(vars(base).get(name), "__doc__", None) or "").strip() for base in owner.__mro__[1:])


@pytest.mark.parametrize("name", ROOMS)
def test_exported_names(name: str) -> None:
    module = room(name)
    values = {public: getattr(module, public) for public in exported(module)}
    silent = [
        public
        for public, value in values.items()
        if (inspect.isclass(value) or inspect.isroutine(value)) and _is_ours(value) and not own_doc(value).strip()
    ]
    assert silent == []


@pytest.mark.parametrize("name", ROOMS)
def test_public_methods(name: str) -> None:
    module = room(name)
    silent = [
        f"{public}.{member}"
        for public in exported(module)
        if inspect.isclass(owner := getattr(module, public)) and _is_ours(owner)
        for member, value in vars(owner).items()
        if not member.startswith("_") and _says_nothing(owner, member, value)
    ]
    assert silent == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_say_what_they_are_about(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    tree = ast.parse(text)
    if not tree.body:
        return
    doc = ast.get_docstring(tree) or ""
    assert re.match(r".*?[.?](\s|$)", doc, re.DOTALL)
    # Headings are optional, but in this order.
    headings = re.findall(r"^(Does|Place|State):", doc, re.MULTILINE)
    assert headings == [one for one in ("Does", "Place", "State") if one in headings]


@pytest.mark.parametrize("name", ROOMS)
def test_lists_of_exports_are_sorted_and_true(name: str) -> None:
    module = room(name)
    listed = getattr(module, "__all__", [])
    assert len(set(listed)) == len(listed)
    assert [public for public in listed if not hasattr(module, public)] == []


def test_every_room_is_looked_at() -> None:
    found = {one.name for one in pkgutil.iter_modules(nsm_sdk.__path__)}
    assert found == {*ROOMS, "cli"}
