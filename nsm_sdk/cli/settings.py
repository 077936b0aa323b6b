# SPDX-License-Identifier: Apache-2.0
"""Settings of programs: declared once, read from flags, the environment and a file.

Does:  a role's settings are a dataclass whose fields are made by `setting`; `load` fills it, flags over environment
       over file, warns of unknown `NSM_*` names with the nearest known one, and refuses a bad value with one sentence
       that names variable, value and what is expected.
Place: below `nsm run`; the library never reads the environment.
State: none.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from nsm_sdk.cli.codecs import Codec, Refused
from nsm_sdk.errors import InvalidRequest

T = TypeVar("T")
S = TypeVar("S")

PREFIX = "NSM_"
LABEL_SOURCES = ("NODE_NAME", "POD_NAME", "CLUSTER_NAME")
"""Read without the prefix, as upstream does; they become labels."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


class BadSettings(Exception):
    """The settings cannot be used; the message is the sentence for the user."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a role."""

    name: str
    codec: Codec[Any]
    default: str | None
    """As a user would write it; None: it has to be given."""
    meaning: str
    shown: str
    """The default as `--help` shows it."""


def setting(codec: Codec[T], default: str | None, meaning: str, *, shown: str = "") -> T:
    """Declare a field of a settings dataclass. Its variable is `NSM_` and the field's name in upper case."""
    made: T = field(metadata={"codec": codec, "default": default, "meaning": meaning, "shown": shown})
    return made


def declared(kind: type[Any]) -> tuple[Setting, ...]:
    """The settings of a dataclass: its own, then those of its bases."""
    own = inspect.get_annotations(kind)
    return tuple(
        Setting(
            PREFIX + one.name.upper(),
            one.metadata["codec"],
            one.metadata["default"],
            one.metadata["meaning"],
            one.metadata["shown"] or _shown(one.metadata["default"]),
        )
        for one in sorted(dataclasses.fields(kind), key=lambda one: one.name not in own)
        if "codec" in one.metadata
    )


def _shown(default: str | None) -> str:
    return "required" if default is None else default or "none"


def read_env_file(path: str) -> dict[str, str]:
    """Names and values of a file with one `NAME=value` a line. BadSettings tells what cannot be read, and where."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise BadSettings(f"--env-file {path}: cannot be read: {reason}") from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or not name or any(letter.isspace() for letter in name):
            raise BadSettings(f"--env-file {path}, line {number}: {line[:80]!r} is not NAME=value")
        values[name] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    """Without quotes round it, or without a comment behind it; no value of ours holds a blank and a '#'."""
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        if end > 0 and (not value[end + 1 :].strip() or value[end + 1 :].lstrip().startswith("#")):
            return value[1:end]
    if value.startswith("#"):
        return ""
    for at in range(1, len(value)):
        if value[at] == "#" and value[at - 1].isspace():
            return value[:at].rstrip()
    return value


def read_flags(flags: Iterable[str]) -> dict[str, str]:
    """Names and values of `--set NSM_NAME=value`. BadSettings for anything else."""
    values: dict[str, str] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals or not (name.startswith(PREFIX) or name in LABEL_SOURCES):
            raise BadSettings(f"--set {flag[:80]!r}: expected NSM_NAME=value, with the setting's full name")
        values[name] = value
    return values


def load(
    kind: type[S],
    *,
    flags: Mapping[str, str] = _NOTHING,
    environment: Mapping[str, str] = _NOTHING,
    file: Mapping[str, str] = _NOTHING,
    known: Iterable[str] = (),
) -> tuple[S, list[str]]:
    """The settings and the warnings. `known` are names of other roles, which are told from misspelt ones."""
    table = declared(kind)
    sources = (flags, environment, file)
    given = {name: source[name] for source in reversed(sources) for name in source}
    # One environment often serves several roles; a flag is meant for this one.
    others = set(known).difference(flags)
    warnings = _warnings(given, [one.name for one in table], known, others)
    values: dict[str, Any] = {}
    for one in table:
        text = given.get(one.name, one.default)
        if text is None:
            raise BadSettings(f"{one.name} is not set: expected {one.codec.expected}")
        values[one.name.removeprefix(PREFIX).lower()] = _value(one, text)
    return kind(**values), warnings


def _value(one: Setting, text: str) -> Any:
    try:
        return one.codec(text)
    except Refused as refused:
        why = str(refused)
    except InvalidRequest as error:
        why = error.message
    bad = text if len(text) <= 200 else text[:200] + "..."
    raise BadSettings(f"{one.name}={bad!r}: {f'{why}; ' if why else ''}expected {one.codec.expected}")


def _warnings(given: Iterable[str], names: Sequence[str], known: Iterable[str], silent: set[str]) -> list[str]:
    others = set(known)
    warnings = []
    for name in sorted(given):
        if not name.startswith(PREFIX) or name in names or name in silent:
            continue
        if name in others:
            warnings.append(f"{name} is a setting of other roles, not of this one; it is ignored")
            continue
        near = difflib.get_close_matches(name, names, 1) or difflib.get_close_matches(name, sorted(others), 1)
        warnings.append(f"{name} is not a known setting; " + (f"did you mean {near[0]}?" if near else "it is ignored"))
    return warnings


def labels_of_machine(sources: Mapping[str, str]) -> dict[str, str]:
    """NODE_NAME, POD_NAME and CLUSTER_NAME, where they are set."""
    return {name: sources[name] for name in LABEL_SOURCES if sources.get(name)}


def help_text(kind: type[Any]) -> str:
    """Every setting: name, default, meaning."""
    lines = []
    for one in declared(kind):
        lines.append(f"  {one.name}  ({one.shown})")
        lines.append(f"      {one.meaning}. Expected: {one.codec.expected}.")
    return "\n".join(lines)
