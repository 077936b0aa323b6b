# SPDX-License-Identifier: Apache-2.0
"""The order rules of a chain, checked on the outermost chain before it is served.

Does:  walks every path a request can take; a branch sees what stands before the branching element.
Place: called by `Chain.check`.
State: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nsm_sdk.core.slot import Slot
from nsm_sdk.errors import ChainOrderError

if TYPE_CHECKING:
    from nsm_sdk.core.layer import Chain, Layer


def check(chain: Chain[Any]) -> None:
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
    from nsm_sdk.core.layer import Chain

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
