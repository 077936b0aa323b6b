# SPDX-License-Identifier: Apache-2.0
"""Values and functions of label templates.

Does:  what a template works with (texts, numbers, truth, the labels themselves, a label that is not there), how Go
       prints each, and the functions that a template may call.
Place: `nsm_sdk.registry.template` alone.
State: none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias, final

NO_VALUE = "<no value>"
"""How a label that is not there is rendered."""

MOST = 1 << 16
"""Characters of a text that a function makes out of others."""
_MOST_LABELS = 64
"""Labels that are printed as a whole."""

_VERB = re.compile(r"%([sdvq%])")


class Bad(Exception):
    """Does not parse, or cannot run."""


@final
class Missing:
    """A label that is not there: false in conditions, "<no value>" as text."""


MISSING = Missing()
Value: TypeAlias = "str | int | bool | Mapping[str, str] | Missing"


def true(value: Value) -> bool:
    """Whether a condition holds: anything but what is missing, false, zero or empty."""
    return not isinstance(value, Missing) and bool(value)


def text_of(value: Value) -> str:
    """The text that Go prints for a value."""
    match value:
        case Missing():
            return NO_VALUE
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case _:
            if len(value) > _MOST_LABELS:
                raise Bad
            return _bounded(f"map[{' '.join(f'{key}:{value[key]}' for key in sorted(value))}]")


def _bounded(text: str) -> str:
    if len(text) > MOST:
        raise Bad
    return text


def _index(args: list[Value]) -> Value:
    if len(args) == 1:
        return args[0]
    if len(args) != 2 or not isinstance(args[0], Mapping) or not isinstance(args[1], str):
        raise Bad
    return args[0].get(args[1], "")


def _len(args: list[Value]) -> Value:
    match args:
        case [str() as text]:
            return len(text.encode())
        case [Mapping() as labels]:
            return len(labels)
    raise Bad


def _printf(args: list[Value]) -> Value:
    if not args or not isinstance(args[0], str) or any(isinstance(arg, Missing) for arg in args):
        raise Bad
    left = args[1:]
    room = MOST
    shape = args[0]
    if "%" in _VERB.sub("", shape):
        raise Bad

    def fill(found: re.Match[str]) -> str:
        nonlocal room
        verb = found[1]
        if verb == "%":
            return "%"
        if not left:
            raise Bad
        value = left.pop(0)
        fits = {"s": isinstance(value, str), "q": isinstance(value, str), "v": True}.get(
            verb, isinstance(value, int) and not isinstance(value, bool)
        )
        if not fits:
            raise Bad
        text = json.dumps(value, ensure_ascii=False) if verb == "q" else text_of(value)
        room -= len(text)
        if room < 0:
            raise Bad
        return text

    filled = _VERB.sub(fill, shape)
    if left:
        raise Bad
    return filled


def _print(args: list[Value]) -> Value:
    out = ""
    for at, arg in enumerate(args):
        # Go puts a space between two operands when neither is a string.
        if at and not isinstance(arg, str) and not isinstance(args[at - 1], str):
            out += " "
        out = _bounded(out + ("<nil>" if isinstance(arg, Missing) else text_of(arg)))
    return out


def _equal(args: list[Value]) -> Value:
    if len(args) < 2 or any(type(arg) is not type(args[0]) or not isinstance(arg, (str, int)) for arg in args):
        raise Bad
    return any(arg == args[0] for arg in args[1:])


def _compare(accepted: tuple[int, ...]) -> Callable[[list[Value]], Value]:
    def compare(args: list[Value]) -> Value:
        match args:
            case [bool(), _] | [_, bool()]:
                raise Bad
            case [str() as a, str() as b]:
                return (a > b) - (a < b) in accepted
            case [int() as c, int() as d]:
                return (c > d) - (c < d) in accepted
        raise Bad

    return compare


def _pair(equal: Callable[[list[Value]], Value]) -> Callable[[list[Value]], Value]:
    def differs(args: list[Value]) -> Value:
        if len(args) != 2:
            raise Bad
        return not equal(args)

    return differs


def _println(args: list[Value]) -> Value:
    out: list[str] = []
    room = MOST
    for arg in args:
        out.append("<nil>" if isinstance(arg, Missing) else text_of(arg))
        room -= len(out[-1])
        if room < 0:
            raise Bad
    return " ".join(out) + "\n"


def _choose(wanted: bool) -> Callable[[list[Value]], Value]:
    def choose(args: list[Value]) -> Value:
        if not args:
            raise Bad
        return next((arg for arg in args if true(arg) is wanted), args[-1])

    return choose


def _not(args: list[Value]) -> Value:
    if len(args) != 1:
        raise Bad
    return not true(args[0])


FUNCTIONS: Mapping[str, Callable[[list[Value]], Value]] = {
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
    "println": _println,
}
