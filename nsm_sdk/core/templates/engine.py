# SPDX-License-Identifier: Apache-2.0
"""Templates rendered by Jinja2 in its sandbox.

Does:  `Template` is a text of our own configuration, in Jinja's spelling or Go's: checked when it is made, and again
       bounded when it is rendered. `LabelTemplates` renders what peers send, in Go's spelling alone: what cannot be
       rendered stays as it is. `connection_fields` is what templates over a connection speak of.
Place: match rules, NAT rules, names of members, commands and descriptions of suppliers.
State: bounded caches of translated texts and compiled shapes.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, final

from google.protobuf.message import Message

from nsm_sdk.api import Connection
from nsm_sdk.core.templates import functions
from nsm_sdk.core.templates.functions import Unrenderable
from nsm_sdk.core.templates.go import Translation, error_at, translate
from nsm_sdk.errors import TemplateError

if TYPE_CHECKING:
    from types import TracebackType

    from jinja2 import Template as Compiled

LONGEST = 4096
"""Characters of a template that a peer sent: who registers a service writes it, and each request of a client pays for
it."""
MOST_RENDERED = 4 << 20
"""Characters to which all templates of one choice among endpoints render together; more stay as they are."""
LONGEST_OF_OURS = 1 << 18
"""Characters of a template of our own, and of what it renders to."""
MOST_PARTS = 128
"""Texts, names, literals and marks of a template that a peer sent: compiling one takes time by their number."""
MOST_OF_A_CHOICE = 256
"""Parts of all differently built templates that one choice among endpoints compiles; more stay as they are."""
_MOST_PARTS_OF_OURS = 1 << 13
_TEXTS = 1024
_LISTED = 16


class _Sandbox(Protocol):
    """What the module of that name offers."""

    FILE: str

    @property
    def JinjaError(self) -> type[Exception]: ...  # noqa: N802
    def shape(self, source: str) -> Compiled: ...
    def pieces(self, compiled: Compiled, constants: Mapping[str, Any], dot: Mapping[str, Any]) -> Iterable[str]: ...
    def from_jinja(self, text: str, fields: Mapping[str, Any]) -> Compiled: ...
    def line_start(self, text: str, line: int) -> int: ...


@functools.cache
def _sandbox() -> _Sandbox:
    """Imports Jinja2: that takes longer than a command may to print its help."""
    from nsm_sdk.core.templates import sandbox

    return sandbox


@functools.lru_cache(maxsize=_TEXTS)
def _rule(text: str) -> Translation | None:
    """A peer's template, translated; None where it is none."""
    try:
        return translate(text, ours=False, strict=False, most=MOST_PARTS)
    except TemplateError:
        return None


class LabelTemplates:
    """Templates of peers, rendered over one set of labels; each is rendered once."""

    __slots__ = ("_labels", "_left", "_longest", "_rendered", "_room", "_shapes")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._rendered: dict[str, str] = {}
        self._shapes: set[str] = set()
        self._left = MOST_OF_A_CHOICE
        self._room = MOST_RENDERED
        # A template that is one label is filled in however long that is.
        self._longest = max(LONGEST, *map(len, labels.values())) if labels else LONGEST

    def render(self, text: str) -> str:
        """`text` with its templates filled in from the labels; as it is where that cannot be done. Never raises."""
        if "{{" not in text:
            return text
        rendered = self._rendered.get(text)
        if rendered is None:
            rendered = self._rendered[text] = self._render(text)
        return rendered

    def _render(self, text: str) -> str:
        translation = _rule(text) if len(text) <= LONGEST else None
        if translation is None:
            return text
        if translation.source not in self._shapes:
            if translation.weight > self._left:
                return text
            self._left -= translation.weight
            self._shapes.add(translation.source)
        try:
            rendered = _run(
                _sandbox().shape(translation.source), translation, self._labels, min(self._room, self._longest)
            )
        except (Unrenderable, RecursionError):
            return text
        self._room -= len(rendered)
        return rendered


@final
class Closed(Mapping[str, Any]):
    """A map whose names are fixed: another one is an error, while a name that a plain map lacks reads as empty."""

    __slots__ = ("_names", "_read")

    def __init__(self, names: Mapping[str, Any], read: Callable[[Any], Any] | None = None) -> None:
        self._names = names
        self._read = read or _opened

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            near = difflib.get_close_matches(name[:64], self._names, 1)
            there = f"do you mean {near[0]}?" if near else f"there is {_listed(self._names)}"
            raise Unrenderable(f"there is no {name[:64]!r} here; {there}")
        return self._read(self._names[name])

    def __contains__(self, name: object) -> bool:
        # So that the look-up follows, whose error tells what there is.
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Open(dict[str, Any]):
    """A map in which an absent name reads as empty; `<no value>` would be no name, address or command."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return ""


def _opened(value: Any) -> Any:
    if isinstance(value, Closed):
        return value
    if isinstance(value, Mapping):
        return _Open({key: _opened(each) for key, each in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_opened(each) for each in value]
    return value


def _listed(names: Iterable[str]) -> str:
    listed = sorted(name for name in names if not name.startswith("Get"))
    return ", ".join(listed[:_LISTED]) + (", …" if len(listed) > _LISTED else "")


class Template:
    """A text in which `{{ … }}` is filled in from values.

    `fields` gives the names that it may speak of, each with an example: a text, number, truth value, list, map of any
    names, or `Closed` map. A text that does not parse, speaks of other names, or fails over the examples raises
    TemplateError, with line and column. The spelling is Go's where the text is good in it, else Jinja's, which `jinja`
    forbids: what a peer has sent must not be able to loop.
    """

    def __init__(self, text: str, fields: Mapping[str, Any], *, jinja: bool = True) -> None:
        self.text = text
        self._fields = fields
        self._source: Compiled | None = None
        self._translation: Translation | None = None
        if len(text) > LONGEST_OF_OURS:
            raise error_at(text, LONGEST_OF_OURS, f"a template of more than {LONGEST_OF_OURS} characters")
        if "{{" not in text and not (jinja and "{%" in text):
            return
        self._compile(jinja)
        self.render(fields)

    def _compile(self, jinja: bool) -> None:
        try:
            self._translation = self._from_go(jinja)
            self._source = self._compiled(self._translation)
        except TemplateError as error:
            in_go = error
        else:
            return
        if not jinja:
            raise in_go
        try:
            self._source = _sandbox().from_jinja(self.text, Closed(self._fields))
        except TemplateError:
            if "{%" in self.text or not _looks_go(self.text):
                raise
        else:
            return
        raise in_go

    def _compiled(self, translation: Translation) -> Compiled:
        try:
            return _sandbox().shape(translation.source)
        except RecursionError:
            raise error_at(self.text, 0, "too many levels within each other") from None

    def _from_go(self, jinja: bool) -> Translation:
        most = _MOST_PARTS_OF_OURS if jinja else MOST_PARTS
        translation = translate(self.text, ours=jinja, strict=True, most=most)
        for offset, path in translation.paths:
            _check_path(self.text, offset, path, self._fields)
        return translation

    def render(self, values: Mapping[str, Any]) -> str:
        """The text over `values`, of the same names as `fields`. TemplateError where that fails."""
        if self._source is None:
            return self.text
        try:
            return _run(self._source, self._translation, Closed(values), LONGEST_OF_OURS)
        except Unrenderable as error:
            raise error_at(self.text, self._offset(error.__traceback__), str(error)) from None

    def _offset(self, trace: TracebackType | None) -> int:
        """Where in the text the compiled code failed."""
        compiled = self._source
        line = 1
        while compiled is not None and trace is not None:
            if trace.tb_frame.f_code.co_filename == _sandbox().FILE:
                line = compiled.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        if self._translation is not None:
            return self._translation.offsets[min(line, len(self._translation.offsets)) - 1]
        return _sandbox().line_start(self.text, line)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def connection_fields(conn: Connection) -> Closed:
    """What templates over a connection speak of: its fields, in Go's names or as the protocol has them, and
    `workloadName` (label, else label `podName`), `networkService`, `clusterName` and `labels`."""
    labels = conn.labels
    names: dict[str, Any] = {
        "workloadName": labels["workloadName"] if "workloadName" in labels else labels.get("podName", ""),
        "networkService": conn.network_service,
        "clusterName": labels.get("clusterName", ""),
        "labels": labels,
    }
    return Closed({**_names_of(conn), **names}, _field_of_message)


def _names_of(message: Message) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for one in message.DESCRIPTOR.fields:
        value = getattr(message, one.name)
        pascal = "".join(part[:1].upper() + part[1:] for part in one.name.split("_"))
        names |= dict.fromkeys((one.name, pascal, f"Get{pascal}"), value)
    return names


def _field_of_message(value: Any) -> Any:
    if isinstance(value, Message):
        return Closed(_names_of(value), _field_of_message)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_field_of_message(each) for each in value]
    return _opened(value)


def _check_path(text: str, offset: int, path: tuple[str, ...], fields: Mapping[str, Any]) -> None:
    """TemplateError where a name of the chain cannot be there."""
    value: Any = Closed(fields)
    for name in path:
        if not isinstance(value, Closed):
            return
        try:
            value = value[name]
        except Unrenderable as error:
            raise error_at(text, offset, str(error)) from None


def _looks_go(text: str) -> bool:
    """Whether somebody who wrote this meant Go's spelling: its error is the one that helps."""
    at = text.find("{{")
    while at >= 0:
        end = text.find("}}", at)
        action = text[at + 2 : end if end >= 0 else len(text)].removeprefix("-")
        first = action.split(maxsplit=1)[:1]
        if first and (first[0] in functions.ARGUMENTS or first[0] in ("if", "else", "end", "with", "range")):
            return True
        if any(word[:1] in (".", "$", "`") for word in action.replace("(", " ").split()):
            return True
        at = text.find("{{", end) if end >= 0 else -1
    return False


def _run(compiled: Compiled, translation: Translation | None, values: Mapping[str, Any], room: int) -> str:
    """What the compiled template makes of the values. Unrenderable for a failure, and for more than `room`."""
    out: list[str] = []
    try:
        if translation is None:
            pieces: Iterable[str] = compiled.root_render_func(
                compiled.new_context({name: values[name] for name in values})
            )
        else:
            pieces = _sandbox().pieces(compiled, translation.constants, values)
        for piece in pieces:
            room -= len(piece)
            if room < 0:
                raise Unrenderable("it renders to a text that is too long")
            out.append(piece)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, _sandbox().JinjaError) as error:
        raise Unrenderable(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__) from None
    return "".join(out)
