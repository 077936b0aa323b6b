# SPDX-License-Identifier: Apache-2.0
"""Label values that are templates: `{{ .nodeName }}`.

Does:  renders the part of Go's text templates that makes sense over a flat map of labels: fields, `index`, literals,
       pipes, parentheses, `if`/`else`/`with`, comparisons, `printf`, `len`, `print`, comments, trim markers. A text
       that does not parse, or fails while it runs, stays what it is.
Place: matching of endpoints; nowhere else.
State: a bounded cache of parsed templates.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

NO_VALUE = "<no value>"
"""How a label that is not there is rendered."""

_ACTION = re.compile(r"\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s+|(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>[+-]?\d+)|(?P<field>\.[A-Za-z_]\w*)|(?P<dot>\.)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<mark>[()|])"""
)
_DEEPEST = 32
_VERB = re.compile(r"%([sdvq%])")


class _Bad(Exception):
    """Does not parse, or cannot run."""


@final
class _Missing:
    """A label that is not there: false in conditions, "<no value>" as text."""


_MISSING = _Missing()
Value: TypeAlias = "str | int | bool | Mapping[str, str] | _Missing"
_Render: TypeAlias = Callable[[Value, Mapping[str, str]], Value]


@dataclass(frozen=True, slots=True)
class _Branch:
    condition: _Render
    rebinds: bool
    then: tuple[object, ...]
    otherwise: tuple[object, ...]


def render(text: str, values: Mapping[str, str]) -> str:
    """`text` with its templates filled in from `values`; as it is when it is no good template."""
    if "{{" not in text:
        return text
    parsed = _parse(text)
    if parsed is None:
        return text
    try:
        return "".join(_run(parsed, values, values))
    except (_Bad, RecursionError):
        return text


def _run(nodes: tuple[object, ...], dot: Value, values: Mapping[str, str]) -> list[str]:
    out: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, _Branch):
            found = node.condition(dot, values)
            inner = found if node.rebinds and _true(found) else dot
            out.extend(_run(node.then if _true(found) else node.otherwise, inner, values))
        elif callable(node):
            out.append(_text(node(dot, values)))
    return out


def _true(value: Value) -> bool:
    return not isinstance(value, _Missing) and bool(value)


def _text(value: Value) -> str:
    match value:
        case _Missing():
            return NO_VALUE
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case _:
            return f"map[{' '.join(f'{key}:{value[key]}' for key in sorted(value))}]"


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> tuple[object, ...] | None:
    """The template's nodes: texts, renderers and branches; None if it does not parse."""
    pieces: list[tuple[str, str]] = []
    at = 0
    for found in _ACTION.finditer(text):
        literal = text[at : found.start()]
        if pieces and pieces[-1][0] == "trim":
            pieces.pop()
            literal = literal.lstrip()
        pieces.append(("text", literal.rstrip() if found[1] else literal))
        pieces.append(("action", found[2].strip()))
        if found[3]:
            pieces.append(("trim", ""))
        at = found.end()
    rest = text[at:]
    if pieces and pieces[-1][0] == "trim":
        pieces.pop()
        rest = rest.lstrip()
    if "{{" in rest:
        return None
    pieces.append(("text", rest))
    try:
        nodes, stopped, left = _block(pieces, 0)
    except _Bad:
        return None
    return nodes if not stopped and left == len(pieces) else None


def _block(pieces: list[tuple[str, str]], at: int, depth: int = 0) -> tuple[tuple[object, ...], str, int]:
    """Nodes up to an `else` or `end` of an outer block, which one it was, and where to go on."""
    nodes: list[object] = []
    if depth > _DEEPEST:
        raise _Bad
    while at < len(pieces):
        kind, body = pieces[at]
        at += 1
        if kind == "text":
            if body:
                nodes.append(body)
            continue
        if body.startswith("/*") and body.endswith("*/"):
            continue
        word, _, rest = body.partition(" ")
        if word in ("if", "with"):
            node, at = _branch(word, rest, pieces, at, depth + 1)
            nodes.append(node)
        elif word in ("else", "end"):
            return tuple(nodes), body, at
        else:
            nodes.append(_expression(body))
    return tuple(nodes), "", at


def _branch(word: str, condition: str, pieces: list[tuple[str, str]], at: int, depth: int) -> tuple[_Branch, int]:
    tested = _expression(condition)
    then, stopped, at = _block(pieces, at, depth)
    otherwise: tuple[object, ...] = ()
    if stopped.startswith("else "):
        again, _, rest = stopped[5:].strip().partition(" ")
        if again != word or depth > _DEEPEST:
            raise _Bad
        node, at = _branch(word, rest, pieces, at, depth + 1)
        return _Branch(tested, word == "with", then, (node,)), at
    if stopped == "else":
        otherwise, stopped, at = _block(pieces, at, depth)
    if stopped != "end":
        raise _Bad
    return _Branch(tested, word == "with", then, otherwise), at


def _tokens(body: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    glued = False
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None:
            raise _Bad
        kind = found.lastgroup
        if kind is not None:
            # ".a.b" asks a label for a field, which no label has; 'x"y"' and the like are no Go either.
            if glued and kind != "mark" and tokens[-1][0] != "mark":
                raise _Bad
            tokens.append((kind, found[0]))
        glued = kind is not None
        at = found.end()
    return tokens


def _expression(body: str) -> _Render:
    tokens = _tokens(body)
    if not tokens:
        raise _Bad
    value, left = _pipeline(tokens, 0, 0)
    if left != len(tokens):
        raise _Bad
    return value


def _pipeline(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[_Render, int]:
    if depth > _DEEPEST:
        raise _Bad
    piped: _Render | None = None
    while True:
        operands: list[_Render] = []
        name = ""
        while at < len(tokens) and tokens[at][1] not in ("|", ")"):
            kind, text = tokens[at]
            at += 1
            if text == "(" and kind == "mark":
                operand, at = _pipeline(tokens, at, depth + 1)
                if at >= len(tokens) or tokens[at][1] != ")":
                    raise _Bad
                at += 1
                operands.append(operand)
            elif kind == "word" and text not in ("true", "false") and not operands and not name:
                if text not in _FUNCTIONS:
                    raise _Bad
                name = text
            else:
                operands.append(_operand(kind, text))
        if not name and len(operands) != 1:
            raise _Bad
        if piped is not None:
            if not name:
                raise _Bad
            operands.append(piped)
        piped = _call(name, tuple(operands)) if name else operands[0]
        if at >= len(tokens) or tokens[at][1] == ")":
            return piped, at
        at += 1


def _operand(kind: str, text: str) -> _Render:
    constant: Value
    match kind:
        case "dot":
            return lambda dot, values: dot
        case "field":
            return functools.partial(_field, text[1:])
        case "string" if text[0] == "`":
            constant = text[1:-1]
        case "string":
            try:
                constant = str(json.loads(text))
            except ValueError as error:
                raise _Bad from error
        case "number":
            constant = int(text[:20])
        case "word":
            constant = text == "true"
            if text not in ("true", "false"):
                raise _Bad
        case _:
            raise _Bad
    return lambda dot, values: constant


def _field(name: str, dot: Value, values: Mapping[str, str]) -> Value:
    if not isinstance(dot, Mapping):
        raise _Bad
    return dot.get(name, _MISSING)


def _call(name: str, operands: tuple[_Render, ...]) -> _Render:
    function = _FUNCTIONS[name]

    def run(dot: Value, values: Mapping[str, str]) -> Value:
        return function([operand(dot, values) for operand in operands])

    return run


def _index(args: list[Value]) -> Value:
    if len(args) == 1:
        return args[0]
    if len(args) != 2 or not isinstance(args[0], Mapping) or not isinstance(args[1], str):
        raise _Bad
    return args[0].get(args[1], "")


def _len(args: list[Value]) -> Value:
    match args:
        case [str() as text]:
            return len(text.encode())
        case [Mapping() as labels]:
            return len(labels)
    raise _Bad


def _printf(args: list[Value]) -> Value:
    if not args or not isinstance(args[0], str) or any(isinstance(arg, _Missing) for arg in args):
        raise _Bad
    left = args[1:]
    shape = args[0]
    if "%" in _VERB.sub("", shape):
        raise _Bad

    def fill(found: re.Match[str]) -> str:
        verb = found[1]
        if verb == "%":
            return "%"
        if not left:
            raise _Bad
        value = left.pop(0)
        fits = {"s": isinstance(value, str), "q": isinstance(value, str), "v": True}.get(
            verb, isinstance(value, int) and not isinstance(value, bool)
        )
        if not fits:
            raise _Bad
        return json.dumps(value, ensure_ascii=False) if verb == "q" else _text(value)

    filled = _VERB.sub(fill, shape)
    if left:
        raise _Bad
    return filled


def _print(args: list[Value]) -> Value:
    out = ""
    for at, arg in enumerate(args):
        # Go puts a space between two operands when neither is a string.
        if at and not isinstance(arg, str) and not isinstance(args[at - 1], str):
            out += " "
        out += "<nil>" if isinstance(arg, _Missing) else _text(arg)
    return out


def _equal(args: list[Value]) -> Value:
    if len(args) < 2 or any(type(arg) is not type(args[0]) or not isinstance(arg, (str, int)) for arg in args):
        raise _Bad
    return any(arg == args[0] for arg in args[1:])


def _compare(accepted: tuple[int, ...]) -> Callable[[list[Value]], Value]:
    def compare(args: list[Value]) -> Value:
        match args:
            case [bool(), _] | [_, bool()]:
                raise _Bad
            case [str() as a, str() as b]:
                return (a > b) - (a < b) in accepted
            case [int() as c, int() as d]:
                return (c > d) - (c < d) in accepted
        raise _Bad

    return compare


def _pair(equal: Callable[[list[Value]], Value]) -> Callable[[list[Value]], Value]:
    def differs(args: list[Value]) -> Value:
        if len(args) != 2:
            raise _Bad
        return not equal(args)

    return differs


def _choose(wanted: bool) -> Callable[[list[Value]], Value]:
    def choose(args: list[Value]) -> Value:
        if not args:
            raise _Bad
        return next((arg for arg in args if _true(arg) is wanted), args[-1])

    return choose


def _not(args: list[Value]) -> Value:
    if len(args) != 1:
        raise _Bad
    return not _true(args[0])


_FUNCTIONS: Mapping[str, Callable[[list[Value]], Value]] = {
    "and": _choose(False),
    "eq": _equal,
    "ge": _compare((0, 1)),
    "gt": _compare((1,)),
    "index": _index,
    "le": _compare((-1, 0)),
    "len": _len,
    "lt": _compare((-1,)),
    "ne": _pair(_equal),
    "not": _not,
    "or": _choose(True),
    "print": _print,
    "printf": _printf,
    "println": lambda args: " ".join("<nil>" if isinstance(arg, _Missing) else _text(arg) for arg in args) + "\n",
}
