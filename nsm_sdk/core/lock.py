# SPDX-License-Identifier: Apache-2.0
"""A first-in first-out lock per key.

Does:  serialises work on one key in arrival order; other keys run in parallel; a key without users takes no memory.
       A lock may be handed over: taken in one task, given back in another.
Place: `Begin` of the connection and of the registry family.
State: the keys in use, and who waits for them. (An asyncio lock per key would be the dearest part of taking one that
       nobody holds, which is how nearly all are taken.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLock(Generic[K]):
    """Locks by key; `len()` is the number of keys in use."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[K, deque[asyncio.Future[None]] | None] = {}
        """Keys that are held, and the queue behind each; None until somebody waits."""

    async def acquire(self, key: K) -> None:
        """Wait for the turn of this caller; a cancelled waiter leaves the queue."""
        if key not in self._held:
            self._held[key] = None
            return
        queue = self._held[key]
        if queue is None:
            queue = self._held[key] = deque()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                # The turn came in the same moment: it is the next one's.
                self.release(key)
            elif waiter in queue:
                queue.remove(waiter)
            raise

    def release(self, key: K) -> None:
        """Let the next in line go; may be called from another task than the one that acquired."""
        queue = self._held[key]
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                # Still held: by the one whose turn it is now.
                waiter.set_result(None)
                return
        del self._held[key]

    def locked(self, key: K) -> bool:
        """Whether somebody holds the lock of `key`."""
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)
