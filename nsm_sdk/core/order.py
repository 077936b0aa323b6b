# SPDX-License-Identifier: Apache-2.0
"""The order rules of a chain, checked on the outermost chain before it is served.

Does:  walks every path a request can take; a branch sees what stands before the branching element.
Place: called by `Chain.check`.
State: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsm_sdk.core.slot import Slot
from nsm_sdk.errors import ChainOrderError

if TYPE_CHECKING:
    from nsm_sdk.core.layer import Chain, Layer


def check(chain: Chain[Any]) -> None:
    """Raise `ChainOrderError` for the first rule that is broken."""
    everything = list(chain.walk())
    _walk(chain, [], chain.name, everything)


def _name(layer: Layer[Any]) -> str:
    return type(layer).__name__


def _walk(layer: Layer[Any], above: list[Layer[Any]], where: str, everything: list[Layer[Any]]) -> list[Layer[Any]]:
    """Check `layer` given what stands above it; answer what stands above the next one."""
    from nsm_sdk.core.layer import Chain

    if isinstance(layer, Chain):
        for child in layer.elements:
            above = _walk(child, above, f"{where} / {child.name}" if isinstance(child, Chain) else where, everything)
        return above
    _check_one(layer, above, where, everything)
    own = [*above, layer]
    # Branches are alternatives: what follows may rely on none of them, but must come after all of them.
    inside = [
        inner for branch in layer.children().values() for inner in _walk(branch, own, where, everything)[len(own) :]
    ]
    return own + inside


def _check_one(layer: Layer[Any], above: list[Layer[Any]], where: str, everything: list[Layer[Any]]) -> None:
    name = _name(layer)
    for seen in above:
        if seen.last:
            raise ChainOrderError(
                f"{where}: {name} stands below {_name(seen)}, which must be last",
                hint=f"move {name} above {_name(seen)}",
            )
    if layer.unique and any(type(seen) is type(layer) for seen in above):
        raise ChainOrderError(f"{where}: {name} occurs twice", hint=f"a request may meet only one {name}")
    for needed in layer.needs:
        if not any(isinstance(seen, needed) for seen in above):
            raise ChainOrderError(
                f"{where}: {name} needs {needed.__name__} above it", hint=f"put {needed.__name__}() before {name}"
            )
    for other in layer.after:
        if any(isinstance(item, other) for item in everything) and not any(isinstance(seen, other) for seen in above):
            raise ChainOrderError(
                f"{where}: {name} stands above {other.__name__}", hint=f"move {name} below {other.__name__}"
            )
    if owns_slot(layer) and not any(seen.gives_state for seen in above):
        raise ChainOrderError(
            f"{where}: {name} keeps per-connection state, but no Begin stands above it",
            hint=f"put Begin() before {name}",
        )


def owns_slot(layer: Layer[Any]) -> bool:
    """Whether `layer` itself keeps per-connection state."""
    fields = [*vars(layer).values(), *(value for kind in type(layer).__mro__ for value in vars(kind).values())]
    return any(isinstance(value, Slot) for value in fields)
