# SPDX-License-Identifier: Apache-2.0
"""A first-in first-out lock per key.

Does:  serialises work on one key in arrival order; other keys run in parallel; a key without users takes no memory.
       A lock may be handed over: taken in one task, given back in another.
Place: `Begin` of the connection and of the registry family.
State: one `asyncio.Lock` and a count per key in use (an anyio lock costs seven times as much).
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class _Held:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class KeyedLock(Generic[K]):
    """Locks by key; `len()` is the number of keys in use."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[K, _Held] = {}

    async def acquire(self, key: K) -> None:
        """Wait for the turn of this caller; a cancelled waiter leaves the queue."""
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held()
        held.users += 1
        try:
            await held.lock.acquire()
        except BaseException:
            self._leave(key, held)
            raise

    def release(self, key: K) -> None:
        """Let the next in line go; may be called from another task than the one that acquired."""
        held = self._held[key]
        held.lock.release()
        self._leave(key, held)

    def locked(self, key: K) -> bool:
        """Whether somebody holds the lock of `key`."""
        held = self._held.get(key)
        return held is not None and held.lock.locked()

    def _leave(self, key: K, held: _Held) -> None:
        held.users -= 1
        if not held.users:
            del self._held[key]

    def __len__(self) -> int:
        return len(self._held)
