# SPDX-License-Identifier: Apache-2.0
"""The public surface: every room's `__init__` exports what it says, sorted, and each thing says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import nsm_sdk

ROOMS = sorted(f"nsm_sdk.{room.name}" for room in pkgutil.iter_modules(nsm_sdk.__path__) if room.ispkg)
SOURCES = sorted(path for path in Path(nsm_sdk.__path__[0]).rglob("*.py") if "_gen" not in path.parts)


def sort_key(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions, as the formatter sorts."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


def exports(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is None:
        pytest.skip(f"{module.__name__} exports nothing yet")
    return list(names)


@pytest.mark.parametrize("room", ROOMS)
def test_all_is_sorted_without_doubles_and_importable(room: str) -> None:
    module = importlib.import_module(room)
    names = exports(module)
    assert names == sorted(set(names), key=sort_key)
    missing = [name for name in names if not hasattr(module, name)]
    assert missing == []


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_exported_has_a_docstring(room: str) -> None:
    module = importlib.import_module(room)
    silent = [
        name
        for name in exports(module)
        if (inspect.isclass(value := getattr(module, name)) or inspect.isfunction(value))
        and (value.__module__ or "_gen").startswith("nsm_sdk")
        and "_gen" not in value.__module__
        and not (inspect.getdoc(value) or "").strip()
    ]
    assert silent == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(nsm_sdk.__path__[0])))
def test_a_module_begins_with_its_licence_and_is_not_too_long(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert len(text.splitlines()) <= 600


def test_the_core_needs_no_other_room() -> None:
    allowed = ("nsm_sdk.core", "nsm_sdk.api", "nsm_sdk.errors")
    for path in (Path(nsm_sdk.__path__[0]) / "core").glob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]) and words[1].startswith("nsm_sdk"):
                assert words[1].startswith(allowed), f"{path.name}: {line}"
