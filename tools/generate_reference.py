# SPDX-License-Identifier: Apache-2.0
"""Writes the generated pages of docs/reference out of the code: elements, chains, settings, commands, errors, names.

Does:  reads docstrings, constructors and order rules of what the rooms export, builds the chains of every role from
       the default settings, and lists the settings of every program. Run `python tools/generate_reference.py`; with
       `--check` it writes nothing and fails when a page is not up to date.
Place: by hand, after a change of a docstring, a signature, a recipe or a setting; a test runs the check.
State: none.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from typer.main import get_command

import nsm_sdk
from nsm_sdk import errors
from nsm_sdk.chains import registrant
from nsm_sdk.cli import roles
from nsm_sdk.cli.app import app
from nsm_sdk.cli.settings import LABEL_SOURCES, declared, load
from nsm_sdk.cli.show import STAND_INS
from nsm_sdk.core import Bound, Chain, Element, Layer, QueryElement, RegistryElement, WatchElement

PAGES = Path(__file__).resolve().parents[1] / "docs" / "reference"
HEAD = "<!-- Made by tools/generate_reference.py; do not edit. -->\n"
FAMILIES: tuple[tuple[type[Layer[Any]], str], ...] = (
    (Element, "connection"),
    (RegistryElement, "registry"),
    (WatchElement, "monitor"),
    (QueryElement, "dns"),
)
ORDER = ("client", "endpoint", "core", "elements", "heal", "registry", "ipam", "mechanisms", "security", "dns", "vl3")
"""Rooms that most readers look for, first; the others follow by name."""


# -- what there is ------------------------------------------------------------------------------------------------


def rooms() -> list[tuple[str, ModuleType]]:
    """Every public room of the package; the programs are no library."""
    names = sorted(
        (one.name for one in pkgutil.iter_modules(nsm_sdk.__path__) if one.name != "cli"),
        key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name),
    )
    return [(name, importlib.import_module(f"nsm_sdk.{name}")) for name in names]


def exported(module: ModuleType) -> list[str]:
    """The public names of a room, in alphabetical order."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return sorted(getattr(module, "__all__", own), key=str.lower)


def element_types(module: ModuleType) -> Iterator[tuple[str, type[Layer[Any]]]]:
    """The elements among them, under the names that they are exported by, without the bases."""
    bases = {Layer, Chain, *(base for base, _ in FAMILIES)}
    for name in exported(module):
        value = getattr(module, name)
        if inspect.isclass(value) and issubclass(value, Layer) and value not in bases:
            yield name, value


# -- texts --------------------------------------------------------------------------------------------------------


def cell(text: str) -> str:
    """One line that a table can hold."""
    return " ".join(text.split()).replace("|", "\\|")


def table(*head: str) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(cell, cells))} |"


def first_paragraph(doc: str | None) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join(inspect.cleandoc(doc or "").partition("\n\n")[0].split())


def headed(module: ModuleType, head: str) -> str:
    """What a module's docstring says under `Does:`, `Place:` or `State:`."""
    found = re.search(rf"^{head}:(.*?)(?=^\S|\Z)", module.__doc__ or "", re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


_OBJECT = re.compile(
    r"<(?:built-in method (\w+) of \w+ object|(?:function |[\w.]+\.)?(\w+)(?: object)?) at 0x[0-9a-f]+>"
)
_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")


def without_addresses(text: str) -> str:
    """The same on every run: names instead of objects."""
    return _CLASS.sub(r"\1", _OBJECT.sub(lambda found: found[1] or found[2], text))


def signature(value: Any, name: str) -> str:
    """`name(parameters)`, with types as they are written in the code."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parameters = [one for one in found.parameters.values() if one.name != "self"]
    text = str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    # Annotations are texts already; quotes round them would only disturb.
    return without_addresses(name + re.sub(r": '([^']*)'", r": \1", text))


def own_doc(value: Any) -> str:
    """The docstring that is the object's own; dataclasses make one of their signature, which is none."""
    doc = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    if inspect.isclass(value) and dataclasses.is_dataclass(value) and (doc or "").startswith(f"{value.__name__}("):
        return ""
    return doc or ""


# -- pages --------------------------------------------------------------------------------------------------------


def elements_page() -> str:
    """Every exported element."""
    lines = [
        "# Elements",
        "",
        "Every element that a room exports, with what its constructor takes, what it does, where it stands, what it",
        "keeps, and the order rules that are checked when a chain is served.",
    ]
    for room, module in rooms():
        found = list(element_types(module))
        if not found:
            continue
        lines += ["", f"## nsm_sdk.{room}"]
        for name, kind in found:
            lines += ["", *one_element(room, name, kind)]
    return "\n".join(lines)


def one_element(room: str, name: str, kind: type[Layer[Any]]) -> Iterator[str]:
    """The entry of one element."""
    module = inspect.getmodule(kind)
    assert module is not None
    family = next((each for base, each in FAMILIES if issubclass(kind, base)), "any")
    yield f"### {name}"
    yield ""
    yield "```text"
    yield signature(kind, f"nsm_sdk.{room}.{name}")
    yield "```"
    yield ""
    yield inspect.cleandoc(own_doc(kind))
    yield ""
    yield f"* *Family:* {family}."
    for head in ("Does", "Place", "State") if alone_in(module) else ():
        if text := headed(module, head):
            yield f"* *{head}:* {text[0].upper()}{text[1:]}"
    if rules := order_rules(kind):
        yield f"* *Order:* {rules}."


def alone_in(module: ModuleType) -> bool:
    """Whether a module defines one element, so that its docstring tells of that one."""
    found = (one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__)
    return sum(issubclass(one, Layer) and not one.__name__.startswith("_") for one in found) == 1


def order_rules(kind: type[Layer[Any]]) -> str:
    """`needs Begin above; below Refresh; once per path; last`."""
    rules = []
    needs = [one.__name__ for one in kind.needs]
    # A slot is an attribute of an instance, and constructors differ; its declaration is in the source.
    if not needs and re.search(r"\bSlot(\[.*?\])?\(", inspect.getsource(kind)) and not kind.gives_state:
        needs = ["Begin"]
    if needs:
        rules.append(f"needs {', '.join(needs)} above")
    if kind.after:
        rules.append(f"below {', '.join(one.__name__ for one in kind.after)}, where that is in the chain")
    if kind.unique:
        rules.append("once per path")
    if kind.last:
        rules.append("last")
    if kind.gives_state:
        rules.append("opens the state that slots below it live in")
    return "; ".join(rules)


def chains_page() -> str:
    """The chains of every role."""
    lines = [
        "# Chains",
        "",
        "What each role is made of, with default settings: the same as `nsm chain show ROLE`. A request travels from",
        "top to bottom, its answer from bottom to top. *own* is where an application's elements go.",
    ]
    for name, summary in roles.SUMMARIES.items():
        module = roles.module(name)
        settings, _ = load(module.Settings, file=STAND_INS, known=STAND_INS)
        lines += ["", f"## {name}", "", f"{summary[0].upper()}{summary[1:]}."]
        lines += [line for chain in module.build(settings).chains for line in one_chain(chain)]

    def nowhere(url: str) -> Bound:
        raise errors.Unavailable(url)

    lines += [
        "",
        "## registrant",
        "",
        "What endpoints and forwarders register with, and keep their registration alive.",
    ]
    manager = "unix:///var/lib/networkservicemesh/nsm.io.sock"
    lines += [line for chain in registrant("my-nse", manager=manager, dial=nowhere).chains for line in one_chain(chain)]
    return "\n".join(lines)


def one_chain(chain: Chain[Any]) -> list[str]:
    """A chain as a tree and as a drawing."""
    drawn = [f"```text\n{without_addresses(chain.tree())}\n```"]
    if len(chain) > 1:
        drawn.append(f"```mermaid\n{without_addresses(chain.mermaid())}\n```")
    return ["", f"### {chain.name}", "", "\n\n".join(drawn)]


def settings_page() -> str:
    """The settings of every program."""
    lines = [
        "# Settings of the programs",
        "",
        "`nsm run ROLE` reads them from `--set NSM_NAME=VALUE`, the environment, or a file (`--env-file FILE`, one",
        "`NSM_NAME=VALUE` a line); the first of these wins. The library itself never reads the environment. Lists are",
        "comma separated, labels `key:value,key:value`, durations such as `200ms`, `15s`, `1h30m`, booleans `true` or",
        "`false`.",
        "",
        f"{', '.join(f'`{name}`' for name in LABEL_SOURCES)} become labels of requests where those are not set.",
    ]
    kinds: dict[str, type[Any]] = {name: roles.module(name).Settings for name in roles.SUMMARIES}
    tables = {name: {one.name: one for one in declared(kind)} for name, kind in kinds.items()}
    first, *others = tables.values()
    common = [one for name, one in first.items() if all(other.get(name) == one for other in others)]
    shared = {one.name for one in common}
    sections = [("All programs", "", common)]
    for name, summary in roles.SUMMARIES.items():
        own = [one for one in tables[name].values() if one.name not in shared]
        sections.append((f"nsm run {name}", f"{summary[0].upper()}{summary[1:]}.", own))
    for title, summary, found in sections:
        lines += ["", f"## {title}", "", *([summary, ""] if summary else []), *table("name", "default", "meaning")]
        for one in found:
            default = one.shown if one.default is None or one.shown in ("none", "own") else f"`{one.shown}`"
            lines.append(row(f"`{one.name}`", default, f"{one.meaning}. Expected: {one.codec.expected}"))
    return "\n".join(lines)


def commands_page() -> str:
    """The commands of `nsm`."""
    lines = ["# Commands", "", "What the program `nsm` does; each command has `--help`.", ""]
    lines += table("command", "what it does")
    options: list[str] = []

    def visit(words: str, command: Any) -> None:
        for name, below in getattr(command, "commands", {}).items():
            visit(f"{words} {name}", below)
        if hasattr(command, "commands") and not command.invoke_without_command:
            return
        lines.append(row(f"`{words}`", command.help or ""))
        for one in command.params:
            if one.name != "help" and getattr(one, "help", None):
                written = one.metavar or one.name.upper()
                if one.param_type_name == "option":
                    written = " ".join([", ".join(one.opts), *([one.metavar] if one.metavar else [])])
                options.append(row(f"`{words} {written}`", one.help))

    visit("nsm", get_command(app))
    return "\n".join([*lines, "", "## Options and arguments", "", *table("option", "meaning"), *sorted(options)])


def errors_page() -> str:
    """The exception tree."""
    lines = [
        "# Errors",
        "",
        "One tree. Each error has `message` (what went wrong), `hop` and `element` (where), `hint` (what to do about",
        "it), `status` (the gRPC status that a peer reads) and `trail` (the hops it came through, nearest first). How",
        "they travel is told in [errors across hops](../explanation/errors.md).",
        "",
        *table("error", "gRPC status", "meaning"),
    ]

    def branch(kind: type[errors.NsmError], depth: int) -> None:
        indent = "&nbsp;" * 4 * depth
        lines.append(row(f"{indent}`{kind.__name__}`", kind.default_status.name, first_paragraph(kind.__doc__)))
        for below in kind.__subclasses__():
            if below.__module__ == errors.__name__:
                branch(below, depth + 1)

    branch(errors.NsmError, 0)
    return "\n".join(lines)


def api_page() -> str:
    """Every public name."""
    lines = [
        "# Public names",
        "",
        "Import them from their room (`from nsm_sdk.ipam import PointToPointIpam`). What most programs need is also in",
        f"`nsm_sdk` itself: {', '.join(f'`{name}`' for name in nsm_sdk.__all__)}.",
    ]
    for room, module in rooms():
        names = exported(module)
        if not names:
            continue
        lines += ["", f"## nsm_sdk.{room}", "", first_paragraph(module.__doc__), "", *table("name", "what it is")]
        lines += [row(f"`{name}`", what(getattr(module, name), name)) for name in names]
    return "\n".join(lines)


def what(value: Any, name: str) -> str:
    """The first line of the docstring, or what kind of thing it is."""
    if getattr(value, "DESCRIPTOR", None) is not None:
        return f"message `{value.DESCRIPTOR.full_name}`"
    if inspect.isclass(value) or inspect.isroutine(value):
        doc = first_paragraph(own_doc(value))
        if doc:
            return doc if len(doc) <= 160 else f"{doc[:157].rsplit(' ', 1)[0]} ..."
        return "enumeration of the wire protocol" if inspect.isclass(value) else ""
    if isinstance(value, (str, int, float)):
        return f"constant `{value!r}`"
    if name.isupper():
        return f"constant of type `{type(value).__name__}`"
    return "type"


MAKERS: dict[str, Callable[[], str]] = {
    "elements.md": elements_page,
    "chains.md": chains_page,
    "settings.md": settings_page,
    "commands.md": commands_page,
    "errors.md": errors_page,
    "api.md": api_page,
}


def outdated() -> list[str]:
    """Names of pages that are not what they would be now."""
    return [name for name, make in MAKERS.items() if _read(PAGES / name) != f"{HEAD}{make()}\n"]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def main() -> int:
    """Write the pages; with `--check` only compare."""
    if "--check" in sys.argv[1:]:
        old = outdated()
        if old:
            print(f"docs/reference: {', '.join(old)} not up to date; run python tools/generate_reference.py")
        return bool(old)
    for name, make in MAKERS.items():
        (PAGES / name).write_text(f"{HEAD}{make()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
