# SPDX-License-Identifier: Apache-2.0
"""Chains for people: one-line descriptions, trees, Mermaid flowcharts, and the place in a chain where an error arose.

Does:  walks layers and prints public configuration only; attributes that begin with `_`, slots and services are left
       out, and values of type `Secret` print as dots.
Place: used by `repr`, `Chain.tree`, `Chain.mermaid`, the edges.
State: none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nsm_sdk.core.service import Service
from nsm_sdk.core.slot import Slot

if TYPE_CHECKING:
    from nsm_sdk.core.layer import Layer

_NO_REPR: object = object.__repr__


class Secret(str):
    """A text that must not be printed: its repr is dots."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def describe(layer: Layer[Any]) -> str:
    """`Retry(attempts=3)`, or the name of a chain."""
    from nsm_sdk.core.layer import Chain

    if isinstance(layer, Chain):
        return layer.name
    inner = {id(child) for child in layer.children().values()}
    parts = [
        f"{name}={_value(value)}"
        for name, value in vars(layer).items()
        if not name.startswith("_") and not isinstance(value, (Slot, Service)) and id(value) not in inner
    ]
    return f"{type(layer).__name__}({', '.join(parts)})"


def _value(value: Any) -> str:
    if inspect.isroutine(value) or isinstance(value, type):
        return value.__name__
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return type(value).__name__
    if type(value).__repr__ is _NO_REPR:
        # It would say nothing but where the object is.
        return type(value).__name__
    # Messages print over several lines.
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def tree(layer: Layer[Any]) -> str:
    """Lines of text, branches labelled."""
    from nsm_sdk.core.layer import Chain

    lines = [describe(layer)]

    def grow(parent: Layer[Any], indent: str) -> None:
        children = list(parent.children().items())
        for index, (label, child) in enumerate(children):
            last = index == len(children) - 1
            prefix = "" if isinstance(parent, Chain) else f"{label}: "
            lines.append(f"{indent}{'`-' if last else '|-'} {prefix}{describe(child)}")
            grow(child, indent + ("   " if last else "|  "))

    grow(layer, "")
    return "\n".join(lines)


_CODES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;"}
"""Characters that mean something inside a label of a flowchart; the first first."""


def mermaid(layer: Layer[Any]) -> str:
    """A `flowchart TD`: chains are boxes around their elements, branches are labelled arrows."""
    from nsm_sdk.core.layer import Chain

    lines = ["flowchart TD"]
    count = 0

    def quoted(text: str) -> str:
        for character, code in _CODES.items():
            text = text.replace(character, code)
        return f'"{text}"'

    def draw(item: Layer[Any], above: list[str], label: str, indent: str) -> list[str]:
        """Draw `item` below the nodes in `above`; answer the nodes that what follows hangs from."""
        nonlocal count
        count += 1
        own = f"n{count}"
        if isinstance(item, Chain):
            lines.append(f"{indent}subgraph {own}[{quoted(item.name)}]")
            for child in item.elements:
                above = draw(child, above, label, indent + "  ")
                label = ""
            lines.append(f"{indent}end")
            return above
        lines.append(f"{indent}{own}[{quoted(describe(item))}]")
        arrow = f"-->|{quoted(label)}|" if label else "-->"
        lines.extend(f"{indent}{node} {arrow} {own}" for node in above)
        children = item.children()
        return [end for name, child in children.items() for end in draw(child, [own], name, indent)] or [own]

    draw(layer, [], "", "  ")
    return "\n".join(lines)


def where(traceback: TracebackType | None) -> str:
    """The deepest element in a traceback, as `Element.verb`, or an empty text. For failures only: it walks frames."""
    from nsm_sdk.core.layer import Layer

    place = ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self":
            owner = traceback.tb_frame.f_locals.get("self")
            # A layer that binds a verb by itself does its work in a method of that name with an underscore.
            verb = code.co_name.removeprefix("_")
            if isinstance(owner, Layer) and verb in owner.verbs:
                place = f"{type(owner).__name__}.{verb}"
        traceback = traceback.tb_next
    return place
