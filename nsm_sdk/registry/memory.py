# SPDX-License-Identifier: Apache-2.0
"""A registry's memory.

Does:  keeps in a store what passes it, and answers finds and watches from there.
Place: last in a registry, or in a manager without one.
State: the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from nsm_sdk.core import Call, E, Found, Kind, Query, RegistryElement, RegistryNext
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.registry.store import BREATH, MemoryStore


class Memory(RegistryElement[E]):
    """Keeps entries in a store of its own, or in one that others share.

    Several kinds of chains may hold the same store; a store is served by one role at a time.
    """

    def __init__(self, kind: Kind[E], store: MemoryStore[E] | None = None) -> None:
        self._kind = kind
        self.store: MemoryStore[E] = MemoryStore(kind) if store is None else store

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        if not entry.name:
            raise InvalidRequest(f"the {self._kind.label} to register has no name", hint="set the field `name`")
        registered = await next.register(call, entry)
        self.store.put(registered)
        return registered

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        self.store.remove(entry.name)
        await next.unregister(call, entry)

    async def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        """Own entries only: whatever stands below a store registers, but is not asked."""
        if not query.watch:
            for count, entry in enumerate(self.store.scan(query.entry), 1):
                if entry is not None:
                    yield Found(entry)
                if not count % BREATH:
                    await asyncio.sleep(0)
            return
        stream = self.store.watch(query.entry)
        try:
            async for found in stream:
                yield found
        finally:
            await stream.aclose()
