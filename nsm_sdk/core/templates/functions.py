# SPDX-License-Identifier: Apache-2.0
"""Values and functions of templates in the Go spelling.

Does:  how Go prints a value, and the functions that a template may call, each with bounds on what it makes.
Place: filters of the sandbox of `nsm_sdk.core.templates.engine`, under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias, final

from nsm_sdk.api import split_domain

NO_VALUE = "<no value>"
"""How a label that is absent is printed."""

MOST = 1 << 16
"""Characters of a text that a function makes out of others."""
MOST_LABELS = 64
"""Labels or items that are printed as a whole."""
_WIDEST = 4096

_VERB = re.compile(r"%(?P<flags>[-+ 0]*)(?P<width>\d{0,6})(?:\.(?P<precision>\d{0,6}))?(?P<verb>[sdvqxXtfe%])")


class Unrenderable(Exception):
    """A value or an argument with which a template cannot go on; the text says why."""


@final
class Missing:
    """A label that is absent: false in conditions, "<no value>" as text."""

    def __bool__(self) -> bool:
        return False


MISSING = Missing()
Value: TypeAlias = "str | int | bool | float | Mapping[str, Any] | Sequence[Any] | Missing"


def text_of(value: object) -> str:
    """The text that Go prints for a value."""
    match value:
        case str():
            return value
        case Missing():
            return NO_VALUE
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float_text(value)
        case Mapping() if len(value) <= MOST_LABELS:
            return bounded(f"map[{' '.join(f'{key}:{text_of(value[key])}' for key in sorted(value))}]")
        case list() | tuple() if len(value) <= MOST_LABELS:
            return bounded(f"[{' '.join(map(text_of, value))}]")
    raise Unrenderable(f"a value that cannot be printed: {type(value).__name__}")


def bounded(text: str) -> str:
    """The text itself. Unrenderable for one that is too long."""
    if len(text) > MOST:
        raise Unrenderable(f"more than {MOST} characters")
    return text


def field(value: Value, name: str) -> Value:
    """The member `name` of a map; MISSING where it has none, and of what is missing itself."""
    if isinstance(value, Missing):
        return value
    if not isinstance(value, Mapping):
        raise Unrenderable(f"a {_kind(value)} has no field .{name}")
    # Maps decide themselves what is in them: `get` of an open one would not.
    found: Value = value[name] if name in value else MISSING  # noqa: SIM401
    return found


def misused(args: list[Value]) -> Value:
    """Stands where a value that is no function has arguments."""
    raise Unrenderable("only a function takes arguments")


def _float_text(value: float) -> str:
    if value and not 1e-4 <= abs(value) < 1e6:
        digits, _, exponent = f"{Decimal(repr(value)).normalize():e}".partition("e")
        return f"{digits}e{exponent[0]}{exponent[1:]:0>2}"
    return f"{Decimal(repr(value)):f}".removesuffix(".0")


def _kind(value: object) -> str:
    match value:
        case str():
            return "text"
        case bool():
            return "truth value"
        case int() | float():
            return "number"
        case Missing():
            return "missing value"
        case Mapping():
            return "map"
    return "list"


def _whole(value: Value, upper: int) -> int:
    if type(value) is not int or not 0 <= value <= upper:
        raise Unrenderable(f"index out of range: {text_of(value)[:32]} of {upper}")
    return value


def _index(args: list[Value]) -> Value:
    value, *keys = args
    if isinstance(value, Missing):
        raise Unrenderable("a missing value has no index")
    for key in keys:
        match value:
            case Mapping():
                if not isinstance(key, str):
                    raise Unrenderable("the index of a map is a text")
                value = value[key] if key in value else ""  # noqa: SIM401
            case str():
                encoded = value.encode()
                value = encoded[_whole(key, len(encoded) - 1)]
            case list() | tuple():
                value = value[_whole(key, len(value) - 1)]
            case _:
                raise Unrenderable(f"a {_kind(value)} has no index")
    return value


def _slice(args: list[Value]) -> Value:
    value, *bounds = args
    if len(bounds) > 2:
        raise Unrenderable("slice takes a value and two bounds")
    items = value.encode() if isinstance(value, str) else value
    if not isinstance(items, (bytes, list, tuple)):
        raise Unrenderable(f"a {_kind(value)} has no slice")
    end = _whole(bounds[1], len(items)) if len(bounds) > 1 else len(items)
    cut = items[_whole(bounds[0], end) if bounds else 0 : end]
    if not isinstance(cut, bytes):
        return cut
    try:
        return cut.decode()
    except UnicodeDecodeError as error:
        raise Unrenderable("slice would cut a character in two") from error


def _len(args: list[Value]) -> Value:
    match args[0]:
        case str() as text:
            return len(text.encode())
        case Mapping() | list() | tuple() as items:
            return len(items)
    raise Unrenderable(f"a {_kind(args[0])} has no length")


def _printf(args: list[Value]) -> Value:
    shape, *left = args
    if not isinstance(shape, str):
        raise Unrenderable("printf begins with a text")
    if "%" in _VERB.sub("", shape):
        raise Unrenderable("printf: a verb that is not known")
    room = MOST

    def fill(found: re.Match[str]) -> str:
        nonlocal room
        if found["verb"] == "%":
            text = "%"
        elif not left:
            raise Unrenderable("printf: fewer values than verbs")
        else:
            text = _verb(found, left.pop(0))
        room -= len(text)
        if room < 0:
            raise Unrenderable(f"more than {MOST} characters")
        return text

    filled = _VERB.sub(fill, shape)
    if left:
        raise Unrenderable("printf: more values than verbs")
    return filled


def _verb(found: re.Match[str], value: Value) -> str:
    flags, verb, width = found["flags"], found["verb"], int(found["width"] or 0)
    precision = None if found["precision"] is None else int(found["precision"] or 0)
    if width > _WIDEST or (precision or 0) > _WIDEST:
        raise Unrenderable(f"printf: wider than {_WIDEST}")
    number = False
    match value:
        case str() if verb in "sv":
            text = value[:precision]
        case str() if verb == "q" and value.isprintable() and precision is None:
            text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case str() if verb in "xX" and precision is None:
            text = f"{value.encode().hex()}"
            text = text.upper() if verb == "X" else text
        case bool() if verb in "vt" and precision is None:
            text = text_of(value)
        case int() if verb in "dvxX" and precision is None and not isinstance(value, bool):
            text, number = f"{value:{'d' if verb == 'v' else verb}}", True
        case float() if verb in "fe":
            text, number = f"{value:.{6 if precision is None else precision}{verb}}", True
        case _ if verb == "v" and precision is None:
            text = "<nil>" if isinstance(value, Missing) else text_of(value)
        case _:
            raise Unrenderable(f"printf: %{verb} does not fit a {_kind(value)}")
    if number:
        sign = "-" if text.startswith("-") else "+" if "+" in flags else " " if " " in flags else ""
        zeros = width - len(sign) if "0" in flags and "-" not in flags else 0
        text = sign + text.removeprefix("-").rjust(zeros, "0")
    elif set(flags) - {"-"}:
        raise Unrenderable(f"printf: the flags {flags!r} do not fit a {_kind(value)}")
    return text.ljust(width) if "-" in flags else text.rjust(width)


def _print(args: list[Value]) -> Value:
    out: list[str] = []
    room = MOST
    for at, arg in enumerate(args):
        # Go puts a space between two operands when neither is a text.
        space = " " if at and not isinstance(arg, str) and not isinstance(args[at - 1], str) else ""
        out.append(space + ("<nil>" if isinstance(arg, Missing) else text_of(arg)))
        room -= len(out[-1])
        if room < 0:
            raise Unrenderable(f"more than {MOST} characters")
    return "".join(out)


def _println(args: list[Value]) -> Value:
    spaced: list[Value] = [each for arg in args for each in (" ", arg)][1:]
    return bounded(str(_print(spaced)) + "\n")


def _equal(args: list[Value]) -> Value:
    first = args[0]
    for arg in args[1:]:
        if isinstance(first, (Mapping, list, tuple)) or isinstance(arg, (Mapping, list, tuple)):
            raise Unrenderable("maps and lists cannot be compared")
        if isinstance(first, Missing) or isinstance(arg, Missing):
            if first is arg:
                return True
        elif type(first) is not type(arg):
            raise Unrenderable(f"a {_kind(first)} cannot be compared with a {_kind(arg)}")
        elif first == arg:
            return True
    return False


def _differ(args: list[Value]) -> Value:
    return not _equal(args)


def _order(accepted: tuple[int, ...]) -> Callable[[list[Value]], Value]:
    def ordered(args: list[Value]) -> Value:
        match args:
            case [bool(), _] | [_, bool()]:
                pass
            case [str() as a, str() as b]:
                return (a > b) - (a < b) in accepted
            case [int() as c, int() as d]:
                return (c > d) - (c < d) in accepted
            case [float() as e, float() as f]:
                return (e > f) - (e < f) in accepted
        raise Unrenderable(f"a {_kind(args[0])} has no order to a {_kind(args[1])}")

    return ordered


def _name(part: int) -> Callable[[list[Value]], Value]:
    def part_of(args: list[Value]) -> Value:
        if not isinstance(args[0], str):
            raise Unrenderable(f"a {_kind(args[0])} is no name of a service")
        return split_domain(args[0])[part]

    return part_of


FUNCTIONS: Mapping[str, Callable[[list[Value]], Value]] = {
    "domain": _name(1),
    "eq": _equal,
    "ge": _order((0, 1)),
    "gt": _order((1,)),
    "index": _index,
    "le": _order((-1, 0)),
    "len": _len,
    "lt": _order((-1,)),
    "ne": _differ,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "slice": _slice,
    "target": _name(0),
}
"""What a template may call, besides `and`, `or` and `not`, which are Jinja's own."""

ARGUMENTS: Mapping[str, tuple[int, int]] = {
    "and": (1, MOST),
    "domain": (1, 1),
    "eq": (2, MOST),
    "ge": (2, 2),
    "gt": (2, 2),
    "index": (1, MOST),
    "le": (2, 2),
    "len": (1, 1),
    "lt": (2, 2),
    "ne": (2, 2),
    "not": (1, 1),
    "or": (1, MOST),
    "print": (0, MOST),
    "printf": (1, MOST),
    "println": (0, MOST),
    "slice": (1, MOST),
    "target": (1, 1),
}
"""The least and the most arguments of each."""

OURS = frozenset({"target", "domain"})
"""Functions that Go's own templates lack; match rules have none of them."""
