# SPDX-License-Identifier: Apache-2.0
"""The connection family: request and close.

Does:  `Element` is the base of everything that takes part in a connection; `Next` is the rest of the chain, bound.
Place: most elements of the SDK, and those that applications write.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, TypeAlias, final

from nsm_sdk.api import Connection, Request
from nsm_sdk.core.call import Call
from nsm_sdk.core.chain import Chain, Layer, passes
from nsm_sdk.core.observe import Observer

# Coroutine and not Awaitable, so that type checkers see a forgotten await.
RequestFn: TypeAlias = Callable[[Call, Request], Coroutine[Any, Any, Connection]]
CloseFn: TypeAlias = Callable[[Call, Connection], Coroutine[Any, Any, None]]


@final
class Next:
    """The rest of the chain, already bound: the only thing an element may call.

    `closers` are the closes of the elements below, each bound to nothing: what `Begin` runs one by one after a close
    through the chain has failed, so that no element can keep another from cleaning up.
    """

    __slots__ = ("close", "closers", "request")

    def __init__(self, request: RequestFn, close: CloseFn, closers: tuple[CloseFn, ...] = ()) -> None:
        self.request = request
        self.close = close
        self.closers = closers


class Element(Layer[Next]):
    """One step of a connection's chain; override what you need.

    `request` runs for the first request, for every refresh and for healing: it must be repeatable. `close` must be
    safe at any degree of completion, must call `next.close` whatever happens to its own part, and may be repeated.
    A first request that fails is undone by `Begin`, through `close`.
    """

    verbs: ClassVar[tuple[str, ...]] = ("request", "close")
    verb_results: ClassVar[Mapping[str, tuple[type[Any], ...]]] = {"request": (Connection,)}
    next_type = Next

    @passes
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        """Establish or refresh; answers the connection as the caller shall see it."""
        return await next.request(call, request)

    @passes
    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        """Release what this element holds for the connection, and go on below."""
        await next.close(call, conn)

    def bind(self, next: Next, observe: Observer | None = None) -> Next:
        bound = super().bind(next, observe)
        own = (self._bind_verb("close", END, None),) if self.overrides("close") else ()
        bound.closers = own + next.closers
        return bound


async def _end_request(call: Call, request: Request) -> Connection:
    return request.connection


async def _end_close(call: Call, conn: Connection) -> None:
    return None


END = Next(_end_request, _end_close)
"""What follows the last element: the request's connection is the answer, there is nothing to close."""

ConnectionChain: TypeAlias = Chain[Next]
