# SPDX-License-Identifier: Apache-2.0
"""What the four families of elements share: binding, order rules, editing by type.

Does:  `Layer` is inert configuration; `bind(next)` folds it once into callables. `Chain` is a layer made of layers.
       A verb that a layer does not override is not bound at all: the next layer's callable shows through.
Place: base of `Element`, `RegistryElement`, `WatchElement` and `QueryElement`.
State: none; a bound chain holds closures only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from nsm_sdk.core import order, show
from nsm_sdk.core.observe import Observer, Place
from nsm_sdk.core.service import Service
from nsm_sdk.errors import ProgrammingError

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

        # A synchronous closure: an `async def` here would add a frame to every call (style anchors, 3.1).
        def bound(call: Any, subject: Any) -> Any:
            return method(call, subject, next)

        return bound if observe is None else observe.wrap(Place(self, verb), bound)

    def children(self) -> Mapping[str, Layer[N]]:
        """Layers inside this one, by label: branches, or the members of a chain."""
        return {}

    def services(self) -> Iterable[Service]:
        """Shared services that must run while this layer is served. Default: every attribute that is one."""
        return [value for value in vars(self).values() if isinstance(value, Service)]

    def __repr__(self) -> str:
        return show.describe(self)


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
        order.check(self)

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
        return show.tree(self)

    def mermaid(self) -> str:
        """The chain as a Mermaid flowchart."""
        return show.mermaid(self)

    def __len__(self) -> int:
        return len(self.elements)


def walk(layer: Layer[N]) -> Iterator[Layer[N]]:
    """Every layer inside `layer`, depth first, in the order in which a request meets them."""
    for child in layer.children().values():
        yield child
        yield from walk(child)
