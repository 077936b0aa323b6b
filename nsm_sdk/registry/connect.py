# SPDX-License-Identifier: Apache-2.0
"""On to the next registry.

Does:  registers, unregisters and finds at the address that `call.url` names, else at `url`.
Place: last in a chain that continues elsewhere (or in its branch).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from nsm_sdk.core import NS, Bound, Call, Dial, E, Found, Kind, Query, RegistryElement, RegistryNext
from nsm_sdk.errors import FailedPrecondition, Unimplemented
from nsm_sdk.registry.path import NO_PATH, PATH_KEY


class Connect(RegistryElement[E]):
    """`url` may be a function, for an address that is known only later.

    FailedPrecondition without any address, Unimplemented if the peer has no such registry.
    """

    def __init__(self, dial: Dial, kind: Kind[E], url: str | Callable[[], str] = "") -> None:
        self._dial = dial
        self._kind = kind
        self.url = url

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        call.onward.setdefault(PATH_KEY, NO_PATH)
        registered = await self._remote(call).register(call, entry)
        return await next.register(call, registered)

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        call.onward.setdefault(PATH_KEY, NO_PATH)
        try:
            await self._remote(call).unregister(call, self._kind.copy(entry))
        finally:
            await next.unregister(call, entry)

    async def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        async with aclosing(self._remote(call).find(call, query)) as stream:
            async for found in stream:
                yield found
        if not query.watch:
            async with aclosing(next.find(call, query)) as rest:
                async for found in rest:
                    yield found

    def _remote(self, call: Call) -> RegistryNext[E]:
        url = call.url or (self.url if isinstance(self.url, str) else self.url())
        if not url:
            raise FailedPrecondition(
                f"no registry to send the {self._kind.label} to",
                hint="names with '@' need a proxy registry; others need the address of a registry",
            )
        remote = registry_of(self._dial(url), self._kind)
        if remote is None:
            raise Unimplemented(f"{url} has no registry of {self._kind.label}s", hint="check the registry's address")
        return remote


def registry_of(bound: Bound, kind: Kind[E]) -> RegistryNext[E] | None:
    """The registry of that kind at an address, or None."""
    found: Any = bound.ns if kind.label == NS.label else bound.nse
    remote: RegistryNext[E] | None = found
    return remote
