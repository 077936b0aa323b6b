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
from typing import TypeAlias

from nsm_sdk.registry.template_values import FUNCTIONS, MISSING, Bad, Value, text_of, true

_ACTION = re.compile(r"\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s+|(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>[+-]?\d+)|(?P<field>\.[A-Za-z_]\w*)|(?P<dot>\.)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<mark>[()|])"""
)
_DEEPEST = 32
LONGEST = 4096
"""Characters of a template, and of what it renders to: whoever registers a service writes it, and each request of a
client pays for it."""

_Render: TypeAlias = Callable[[Value, Mapping[str, str]], Value]


@dataclass(frozen=True, slots=True)
class _Branch:
    condition: _Render
    rebinds: bool
    then: tuple[object, ...]
    otherwise: tuple[object, ...]


def render(text: str, values: Mapping[str, str]) -> str:
    """`text` with its templates filled in from `values`; as it is when it is no good template."""
    if "{{" not in text or len(text) > LONGEST:
        return text
    parsed = _parse(text)
    if parsed is None:
        return text
    try:
        return "".join(_run(parsed, values, values, [LONGEST]))
    except (Bad, RecursionError):
        return text


def _run(nodes: tuple[object, ...], dot: Value, values: Mapping[str, str], left: list[int]) -> list[str]:
    """The pieces of the rendered text; `left` counts the characters that it may still have."""
    out: list[str] = []
    for node in nodes:
        if isinstance(node, _Branch):
            found = node.condition(dot, values)
            inner = found if node.rebinds and true(found) else dot
            out.extend(_run(node.then if true(found) else node.otherwise, inner, values, left))
            continue
        text = node if isinstance(node, str) else text_of(node(dot, values)) if callable(node) else ""
        left[0] -= len(text)
        if left[0] < 0:
            raise Bad
        out.append(text)
    return out


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> tuple[object, ...] | None:
    """The template's nodes: texts, renderers and branches; None if it does not parse."""
    pieces: list[tuple[str, str]] = []
    at = 0
    if text.rfind("{{") > text.rfind("}}"):
        # Open to its end; looking for the end from each beginning would take time squared.
        return None
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
    except Bad:
        return None
    return nodes if not stopped and left == len(pieces) else None


def _block(pieces: list[tuple[str, str]], at: int, depth: int = 0) -> tuple[tuple[object, ...], str, int]:
    """Nodes up to an `else` or `end` of an outer block, which one it was, and where to go on."""
    nodes: list[object] = []
    if depth > _DEEPEST:
        raise Bad
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
            raise Bad
        node, at = _branch(word, rest, pieces, at, depth + 1)
        return _Branch(tested, word == "with", then, (node,)), at
    if stopped == "else":
        otherwise, stopped, at = _block(pieces, at, depth)
    if stopped != "end":
        raise Bad
    return _Branch(tested, word == "with", then, otherwise), at


def _tokens(body: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    glued = False
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None:
            raise Bad
        kind = found.lastgroup
        if kind is not None:
            # ".a.b" asks a label for a field, which no label has; 'x"y"' and the like are no Go either.
            if glued and kind != "mark" and tokens[-1][0] != "mark":
                raise Bad
            tokens.append((kind, found[0]))
        glued = kind is not None
        at = found.end()
    return tokens


def _expression(body: str) -> _Render:
    tokens = _tokens(body)
    if not tokens:
        raise Bad
    value, left = _pipeline(tokens, 0, 0)
    if left != len(tokens):
        raise Bad
    return value


def _pipeline(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[_Render, int]:
    if depth > _DEEPEST:
        raise Bad
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
                    raise Bad
                at += 1
                operands.append(operand)
            elif kind == "word" and text not in ("true", "false") and not operands and not name:
                if text not in FUNCTIONS:
                    raise Bad
                name = text
            else:
                operands.append(_operand(kind, text))
        if not name and len(operands) != 1:
            raise Bad
        if piped is not None:
            if not name:
                raise Bad
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
                raise Bad from error
        case "number":
            constant = int(text[:20])
        case "word":
            constant = text == "true"
            if text not in ("true", "false"):
                raise Bad
        case _:
            raise Bad
    return lambda dot, values: constant


def _field(name: str, dot: Value, values: Mapping[str, str]) -> Value:
    if not isinstance(dot, Mapping):
        raise Bad
    return dot.get(name, MISSING)


def _call(name: str, operands: tuple[_Render, ...]) -> _Render:
    function = FUNCTIONS[name]

    def run(dot: Value, values: Mapping[str, str]) -> Value:
        return function([operand(dot, values) for operand in operands])

    return run
