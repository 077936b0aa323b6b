# SPDX-License-Identifier: Apache-2.0
"""The watch family: monitor connections.

Does:  `WatchElement` is the base of what answers MonitorConnections.
Place: the monitor chain of a hop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, ClassVar, TypeAlias, final

from nsm_sdk.api import ConnectionEvent, Selector
from nsm_sdk.core.call import Call
from nsm_sdk.core.chain import Layer, passes

WatchFn: TypeAlias = Callable[[Call, Selector], AsyncGenerator[ConnectionEvent, None]]


@final
class WatchNext:
    """The rest of a monitor chain, already bound."""

    __slots__ = ("watch",)

    def __init__(self, watch: WatchFn) -> None:
        self.watch = watch


class WatchElement(Layer[WatchNext]):
    """One step of a monitor chain."""

    verbs: ClassVar[tuple[str, ...]] = ("watch",)
    verb_results: ClassVar[Mapping[str, tuple[type[Any], ...]]] = {"watch": (ConnectionEvent,)}
    next_type = WatchNext

    @passes
    def watch(self, call: Call, selector: Selector, next: WatchNext) -> AsyncGenerator[ConnectionEvent, None]:
        """The present state first (INITIAL_STATE_TRANSFER), then changes, until closed. Write it as a generator."""
        return next.watch(call, selector)


async def _end_watch(call: Call, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
    nothing: tuple[ConnectionEvent, ...] = ()
    for event in nothing:
        yield event


WATCH_END = WatchNext(_end_watch)
"""What follows the last element: the stream ends at once."""
