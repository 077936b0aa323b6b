# SPDX-License-Identifier: Apache-2.0
"""Chains of elements: what the families share, the order rules, and how a chain is shown.

`Layer` is inert configuration; `bind(next)` folds it once into callables, and a verb that a layer does not override is
not bound at all: the next layer's callable shows through. `Chain` is a layer made of layers, which can be edited by
type, checked (`check`) and printed (`tree`, `mermaid`). `where` finds the element in which an error was raised.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from nsm_sdk.core.call import Slot
from nsm_sdk.core.lifecycle import Service
from nsm_sdk.core.observe import Observer, Place, Verb, check_code, checked, is_foreign
from nsm_sdk.errors import ChainOrderError, ProgrammingError

N = TypeVar("N")
F = TypeVar("F", bound=Callable[..., Any])
L = TypeVar("L", bound="Layer[Any]")


def passes(verb: F) -> F:
    """Mark a verb as plain pass-through, so that binding leaves it out."""
    verb.__passes__ = True  # type: ignore[attr-defined]
    return verb


class Layer(Generic[N]):
    """One step of a chain, before it is bound to what follows.

    `needs`: types that must stand above. `after`: types that, if present, stand above. `unique`: once per path.
    `last`: nothing may follow. `gives_state`: opens the per-connection state that slots below live in.
    """

    needs: ClassVar[tuple[type[Layer[Any]], ...]] = ()
    after: ClassVar[tuple[type[Layer[Any]], ...]] = ()
    unique: ClassVar[bool] = False
    last: ClassVar[bool] = False
    gives_state: ClassVar[bool] = False
    verbs: ClassVar[tuple[str, ...]] = ()
    verb_results: ClassVar[Mapping[str, tuple[type[Any], ...]]] = {}
    """What each verb must return, or yield, where it must be something."""
    next_type: ClassVar[type[Any]]

    def bind(self, next: N, observe: Observer | None = None) -> N:
        """Fold this layer onto `next`. Branching layers override this and bind every branch onto the same next."""
        bound: N = self.next_type(*(self._bind_verb(verb, next, observe) for verb in self.verbs))
        return bound

    def overrides(self, verb: str) -> bool:
        """Whether this layer does something of its own for `verb`."""
        return not getattr(getattr(type(self), verb), "__passes__", False)

    def _bind_verb(self, verb: str, next: N, observe: Observer | None) -> Any:
        if not self.overrides(verb):
            return getattr(next, verb)
        method = getattr(self, verb)

        # A synchronous closure: an `async def` here would add a frame to every call.
        def bound(call: Any, subject: Any) -> Any:
            return method(call, subject, next)

        run: Verb = bound
        if is_foreign(method):
            check_code(self, verb)
            run = checked(self, verb, method, next)
        return run if observe is None else observe.wrap(Place(self, verb), run)

    def children(self) -> Mapping[str, Layer[N]]:
        """Layers inside this one, by label: branches, or the members of a chain."""
        return {}

    def services(self) -> Iterable[Service]:
        """Shared services that must run while this layer is served. Default: every attribute that is one."""
        return [value for value in vars(self).values() if isinstance(value, Service)]

    def __repr__(self) -> str:
        return describe(self)


class Chain(Layer[N]):
    """A named sequence of layers; top-down order is the order in which a request travels.

    Editing answers a new chain and leaves this one alone; a type that does not occur is a `ProgrammingError`.
    """

    def __init__(self, name: str, *elements: Layer[N]) -> None:
        for index, element in enumerate(elements):
            if not isinstance(element, Layer):
                raise ProgrammingError(
                    f"chain {name!r}: item {index} is {element!r}, not an element",
                    hint="pass instances, for example Timeout() and not Timeout",
                )
        self.name = name
        self.elements: tuple[Layer[N], ...] = elements

    def bind(self, next: N, observe: Observer | None = None) -> N:
        bound = next
        for element in reversed(self.elements):
            bound = element.bind(bound, observe)
        return bound

    def children(self) -> Mapping[str, Layer[N]]:
        return {str(index): element for index, element in enumerate(self.elements)}

    def services(self) -> Iterable[Service]:
        return ()

    def check(self) -> None:
        """Raise `ChainOrderError` naming both elements if one stands where it cannot work. For the outermost chain."""
        check_order(self)

    def walk(self) -> Iterator[Layer[N]]:
        """Every layer inside, depth first, chains and branches included."""
        return walk(self)

    def all_services(self) -> list[Service]:
        """Services of all layers inside, each once, in order of appearance."""
        found: dict[int, Service] = {}
        for layer in self.walk():
            for service in layer.services():
                found.setdefault(id(service), service)
        return list(found.values())

    def find(self, kind: type[L]) -> L | None:
        """The first layer of that type inside, or None."""
        return next((layer for layer in self.walk() if isinstance(layer, kind)), None)

    def replace(self, kind: type[Layer[N]], *new: Layer[N]) -> Chain[N]:
        """A chain with `new` in the place of every layer of type `kind` (none: leave it out)."""
        return self._edited(kind, lambda _: new)

    def insert_after(self, kind: type[Layer[N]], *new: Layer[N]) -> Chain[N]:
        """A chain with `new` right below every layer of type `kind`."""
        return self._edited(kind, lambda old: (old, *new))

    def insert_before(self, kind: type[Layer[N]], *new: Layer[N]) -> Chain[N]:
        """A chain with `new` right above every layer of type `kind`."""
        return self._edited(kind, lambda old: (*new, old))

    def _edited(self, kind: type[Layer[N]], edit: Callable[[Layer[N]], tuple[Layer[N], ...]]) -> Chain[N]:
        def rebuild(chain: Chain[N]) -> tuple[Chain[N], int]:
            elements: list[Layer[N]] = []
            hits = 0
            for element in chain.elements:
                if isinstance(element, kind):
                    elements.extend(edit(element))
                    hits += 1
                elif isinstance(element, Chain):
                    inner, inner_hits = rebuild(element)
                    elements.append(inner)
                    hits += inner_hits
                else:
                    elements.append(element)
            return Chain(chain.name, *elements), hits

        edited, hits = rebuild(self)
        if not hits:
            names = ", ".join(dict.fromkeys(type(layer).__name__ for layer in self.walk()))
            raise ProgrammingError(
                f"chain {self.name!r} has no {kind.__name__} to edit", hint=f"it has {names or 'no elements'}"
            )
        return edited

    def tree(self) -> str:
        """The chain as lines of text, with each element's configuration."""
        return tree(self)

    def mermaid(self) -> str:
        """The chain as a Mermaid flowchart."""
        return mermaid(self)

    def __len__(self) -> int:
        return len(self.elements)


def walk(layer: Layer[N]) -> Iterator[Layer[N]]:
    """Every layer inside `layer`, depth first, in the order in which a request meets them."""
    for child in layer.children().values():
        yield child
        yield from walk(child)


def check_order(chain: Chain[Any]) -> None:
    """Raise `ChainOrderError` for the first rule that is broken."""
    _walk(chain, _Above((), (), ()), chain.name)


class _Above(NamedTuple):
    """What stands above a layer."""

    surely: tuple[Layer[Any], ...]
    """On every path."""
    maybe: tuple[Layer[Any], ...]
    """On some path."""
    early: tuple[tuple[Layer[Any], type[Layer[Any]], str], ...]
    """Of those, the ones that must stand below a type that has not been met yet, and where they stand."""

    def plus(self, layer: Layer[Any], where: str) -> _Above:
        missing = (
            (layer, other, where) for other in layer.after if not any(isinstance(seen, other) for seen in self.maybe)
        )
        return _Above((*self.surely, layer), (*self.maybe, layer), (*self.early, *missing))


def _name(layer: Layer[Any]) -> str:
    return type(layer).__name__


def _walk(layer: Layer[Any], above: _Above, where: str) -> _Above:
    """Check `layer` given what stands above it; answer what stands above the next one."""
    if isinstance(layer, Chain):
        for child in layer.elements:
            above = _walk(child, above, f"{where} / {child.name}" if isinstance(child, Chain) else where)
        return above
    _check_one(layer, above, where)
    own = above.plus(layer, where)
    # Branches are alternatives: what follows may rely on none of them, but must come after all of them.
    ends = [_walk(branch, own, where) for branch in layer.children().values()]
    return _Above(
        own.surely,
        (*own.maybe, *(inner for end in ends for inner in end.maybe[len(own.maybe) :])),
        (*own.early, *(inner for end in ends for inner in end.early[len(own.early) :])),
    )


def _check_one(layer: Layer[Any], above: _Above, where: str) -> None:
    name = _name(layer)
    for verb in layer.verbs:
        check_code(layer, verb)
    for seen in above.maybe:
        if seen.last:
            raise ChainOrderError(
                f"{where}: {name} stands below {_name(seen)}, which must be last",
                hint=f"move {name} above {_name(seen)}",
            )
    if layer.unique and any(type(seen) is type(layer) for seen in above.maybe):
        raise ChainOrderError(f"{where}: {name} occurs twice", hint=f"a request may meet only one {name}")
    for needed in layer.needs:
        if not any(isinstance(seen, needed) for seen in above.surely):
            raise ChainOrderError(
                f"{where}: {name} needs {needed.__name__} above it", hint=f"put {needed.__name__}() before {name}"
            )
    for seen, other, place in above.early:
        if isinstance(layer, other):
            raise ChainOrderError(
                f"{place}: {_name(seen)} stands above {other.__name__}",
                hint=f"move {_name(seen)} below {other.__name__}",
            )
    if owns_slot(layer) and not any(seen.gives_state for seen in above.surely):
        raise ChainOrderError(
            f"{where}: {name} keeps per-connection state, but no Begin stands above it",
            hint=f"put Begin() before {name}",
        )


def owns_slot(layer: Layer[Any]) -> bool:
    """Whether `layer` itself keeps per-connection state."""
    fields = [*vars(layer).values(), *(value for kind in type(layer).__mro__ for value in vars(kind).values())]
    return any(isinstance(value, Slot) for value in fields)


_NO_REPR: object = object.__repr__


class Secret(str):
    """A text that must not be printed: its repr is dots."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def describe(layer: Layer[Any]) -> str:
    """`Retry(attempts=3)`, or the name of a chain."""
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
