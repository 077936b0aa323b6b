# SPDX-License-Identifier: Apache-2.0
"""Jinja2's sandbox, narrowed to what a template of a line or a page needs, and bounded.

Does:  `shape` compiles what was translated from Go's spelling; `from_jinja` checks and compiles a text in Jinja's. No
       attributes of Python objects, no macros, blocks or includes; loops two deep, over at most a thousand items
       made from numbers; texts and numbers that grow beyond measure are errors.
Place: `nsm_sdk.core.templates.engine`, which imports it when the first template is met: Jinja2 takes its time.
State: a bounded cache of compiled shapes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.lexer import Token, TokenStream
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from nsm_sdk.core.templates import functions
from nsm_sdk.core.templates.functions import MOST, Unrenderable, bounded
from nsm_sdk.core.templates.go import error_at
from nsm_sdk.errors import TemplateError as Refused

JinjaError = TemplateError
FILE = "<nsm template>"
"""The file name of compiled code: frames of a traceback are found by it."""

_SHAPES = 256
_MOST_ITEMS = 1000
_MOST_LOOPS = 2
_LARGEST = 1 << 63
_OFFSETS = 1 << 24
"""Lines of compiled code that are more than this are offsets in its text."""
_LOOP = {"index", "index0", "first", "last", "length"}
_FILTERS = re.findall(
    r"\w+",
    "abs capitalize count d default float first int last length list lower max min reverse round sort string sum title "
    "trim truncate unique upper",
)
_REFUSED = (
    nodes.AssignBlock,
    nodes.Block,
    nodes.CallBlock,
    nodes.EvalContextModifier,
    nodes.Extends,
    nodes.FilterBlock,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
    nodes.Macro,
)
_SPACE = re.compile(r"\s*")


class _Sink(dict[str, Any]):
    """Takes in what compiled code exports, and forgets it."""

    def __setitem__(self, name: str, value: Any) -> None:
        pass

    def add(self, name: str) -> None:
        pass


class _Scope(dict[str, Any]):
    """Stands for a context, which takes three times as long to make: names, and nothing is exported."""

    vars = exported_vars = _Sink()
    resolve_or_missing = dict.__getitem__

    def __missing__(self, name: str) -> Any:
        return missing


class _Pulled(Extension):
    """Counts the tokens that the parser has taken, to tell where it stopped."""

    pulled = 0

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        self.pulled = 0
        for token in stream:
            self.pulled += 1
            yield token


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0, optimized=False)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping):
            return obj[argument]
        if isinstance(obj, (str, list, tuple)) and type(argument) is int:
            return obj[argument]
        if isinstance(obj, LoopContext) and argument in _LOOP:
            return super().getattr(obj, argument)
        raise Unrenderable(f"{type(obj).__name__} has no {str(argument)[:64]!r}")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sized = [each for each in (left, right) if isinstance(each, (str, list, tuple))]
        numbers = [each for each in (left, right) if isinstance(each, (int, float))]
        size = sum(map(len, sized)) if operator == "+" else sum(map(len, sized)) * max(map(abs, numbers), default=0)
        if operator == "**" or (operator == "%" and sized):
            raise Unrenderable(f"{operator} is not allowed here")
        if (sized and size > MOST) or any(abs(each) > _LARGEST for each in numbers):
            raise Unrenderable(f"{operator} makes more than {MOST} characters or digits")
        return super().call_binop(context, operator, left, right)

    def handle_exception(self, source: str | None = None) -> Any:
        # Jinja would rewrite the traceback, by which we tell line and column.
        raise

    def made(self, source: str | nodes.Template) -> Template:
        """The compiled template."""
        return self.template_class.from_code(self, self.compile(source, filename=FILE), self.globals)


class _Concat(NodeTransformer):
    """Writes `a ~ b` as a filter, which knows bounds."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "concat", [], [], None, None, lineno=node.lineno)


def _concat(values: list[object]) -> str:
    return bounded("".join(map(str, values)))


def _join(values: Iterable[object], between: str = "") -> str:
    return bounded(str(between).join(map(str, values)))


def _replace(text: object, old: object, new: object) -> str:
    text, old, new = str(text), str(old), str(new)
    if text.count(old) * len(new) > MOST:
        raise Unrenderable(f"replace makes more than {MOST} characters")
    return text.replace(old, new)


def _range(*bounds: int) -> range:
    items = range(*bounds)
    if len(items) > _MOST_ITEMS:
        raise Unrenderable(f"a range of more than {_MOST_ITEMS} items")
    return items


def _target(name: str) -> object:
    return functions.FUNCTIONS["target"]([name])


def _domain(name: str) -> object:
    return functions.FUNCTIONS["domain"]([name])


@functools.cache
def _for_go() -> _Sandbox:
    sandbox = _Sandbox()
    sandbox.filters = {**functions.FUNCTIONS, "field": functions.field, "misused": functions.misused}
    sandbox.globals = {}
    sandbox.finalize = functions.text_of
    return sandbox


@functools.cache
def _for_jinja() -> _Sandbox:
    sandbox = _Sandbox()
    sandbox.add_extension(_Pulled)
    own = {"concat": _concat, "join": _join, "replace": _replace, "target": _target, "domain": _domain}
    sandbox.filters = {name: FILTERS[name] for name in _FILTERS} | own
    sandbox.globals = {"range": _range, "target": _target, "domain": _domain}
    return sandbox


@functools.lru_cache(maxsize=_SHAPES)
def shape(source: str) -> Template:
    """What a translation from Go's spelling compiles to. RecursionError for one that is too deep for Python."""
    return _for_go().made(source)


def pieces(compiled: Template, constants: Mapping[str, Any], dot: Mapping[str, Any]) -> Iterable[str]:
    """What a shape renders to over its constants and the value of the dot."""
    scope = _Scope(constants)
    scope["dot"] = dot
    return compiled.root_render_func(cast(Context, scope))


def from_jinja(text: str, fields: Mapping[str, Any]) -> Template:
    """The compiled text; Refused, with its place, for one that does not parse, goes beyond what is allowed, or speaks
    of names that are not in `fields`."""
    sandbox = _for_jinja()
    try:
        parsed = sandbox.parse(text)
        _check(text, parsed, sandbox)
        _check_names(text, parsed, fields)
        _place(text, parsed, sandbox)
        return sandbox.made(_Concat().visit(parsed))
    except TemplateSyntaxError as error:
        extension = sandbox.extensions[_Pulled.identifier]
        assert isinstance(extension, _Pulled)
        message = error.message or "a syntax error"
        at_end = "end of template" in message
        raise error_at(text, len(text) if at_end else _reached(text, extension.pulled, sandbox), message) from None
    except RecursionError:
        raise error_at(text, 0, "too many levels within each other") from None


def _reached(text: str, pulled: int, sandbox: _Sandbox) -> int:
    """The offset of the token of that number, counted from 1, or of what the lexer itself did not take."""
    begins: list[int] = []
    at = 0
    try:
        for _, kind, value in sandbox.lex(text):
            if kind == "whitespace" or kind.startswith(("comment", "raw", "linecomment")):
                continue
            begins.append(text.find(value, at))
            at = begins[-1] + len(value)
    except TemplateError:
        # The lexer is up to two tokens ahead of the parser.
        if pulled + 2 >= len(begins):
            space = _SPACE.match(text, at)
            return space.end() if space else at
    return begins[min(pulled, len(begins)) - 1] if begins else 0


def _line(text: str, line: int) -> tuple[int, int]:
    """Where a line, counted from 1, begins and ends."""
    start = 0
    for _ in range(line - 1):
        start = text.find("\n", start) + 1
    end = text.find("\n", start)
    return start, len(text) if end < 0 else end


def _refused(text: str, node: nodes.Node, word: str, message: str, hint: str = "") -> Refused:
    start, end = _line(text, node.lineno)
    found = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(text, start, end)
    return error_at(text, found.start() if found else start, message, hint)


def _check(text: str, parsed: nodes.Node, sandbox: _Sandbox, loops: int = 0) -> None:
    for node in parsed.iter_child_nodes():
        if isinstance(node, _REFUSED):
            word = type(node).__name__.lower()
            raise _refused(text, node, word, f"{word} is not allowed here")
        if isinstance(node, nodes.For) and (loops >= _MOST_LOOPS or node.recursive):
            raise _refused(text, node, "for", f"loops may be {_MOST_LOOPS} deep, and not recursive")
        if isinstance(node, nodes.Filter) and node.name not in sandbox.filters:
            raise _refused(text, node, node.name, f"the filter {node.name!r} is not known", _known(sandbox.filters))
        if isinstance(node, nodes.Test) and node.name not in sandbox.tests:
            raise _refused(text, node, node.name, f"the test {node.name!r} is not known")
        _check(text, node, sandbox, loops + isinstance(node, nodes.For))


def _known(names: Iterable[str]) -> str:
    return f"known are {', '.join(sorted(names))}"


def _check_names(text: str, parsed: nodes.Template, fields: Mapping[str, Any]) -> None:
    names = set(fields)
    unknown = find_undeclared_variables(parsed) - names - _for_jinja().globals.keys()
    stored = {node.name for node in parsed.find_all(nodes.Name) if node.ctx != "load"}
    for node in parsed.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)):
        if isinstance(node, nodes.Name) and node.name in unknown and node.ctx == "load":
            raise _refused(text, node, node.name, _absent(node.name, fields))
        path = _path(node)
        if path and path[0] in names - stored:
            value: Any = fields
            for name in path:
                try:
                    value = value[name] if isinstance(value, Mapping) else None
                except Unrenderable as error:
                    raise _refused(text, node, name, str(error)) from None


def _absent(name: str, fields: Mapping[str, Any]) -> str:
    """What the map itself says of a name that it lacks."""
    try:
        fields[name]
    except Unrenderable as error:
        return str(error)
    return f"there is no {name!r} here"


def _path(node: nodes.Node) -> tuple[str, ...]:
    """The names of a chain that begins with a variable; none for anything else."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        before = _path(node.node)
        return (*before, node.attr) if before else ()
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        before = _path(node.node)
        return (*before, node.arg.value) if before else ()
    return ()


def _place(text: str, parsed: nodes.Template, sandbox: _Sandbox) -> None:
    """Gives each `{{ … }}` its offset as its line: several may stand in one."""
    shown = [node for node in _in_order(parsed) if not isinstance(node, nodes.TemplateData)]
    begins: list[int] = []
    at = 0
    for _, kind, value in sandbox.lex(text):
        at = text.find(value.strip(), at)
        if kind == "variable_begin":
            begins.append(at)
        at += len(value.strip())
    if len(begins) == len(shown):
        for node, begin in zip(shown, begins, strict=True):
            node.lineno = _OFFSETS + begin


def _in_order(parsed: nodes.Node) -> Iterator[nodes.Node]:
    for node in parsed.iter_child_nodes():
        if isinstance(node, nodes.Output):
            yield from node.nodes
        else:
            yield from _in_order(node)


def line_start(text: str, line: int) -> int:
    """The offset of what compiled code has for a line, or of what is rendered first in it, counted from 1."""
    if line >= _OFFSETS:
        return line - _OFFSETS
    start, end = _line(text, line)
    marks = [at for mark in ("{{", "{%") if (at := text.find(mark, start, end)) >= 0]
    return min(marks, default=start)
