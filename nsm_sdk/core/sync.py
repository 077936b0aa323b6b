# SPDX-License-Identifier: Apache-2.0
"""Waiting: a lock per key, a mailbox for one reader, and the pauses between attempts.

Everything here belongs to one event loop and is written once, so that a lost wake-up, a waiter that was cancelled
in the moment of its turn, or an exponent without a bound can only be wrong in one place.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_MAX_EXPONENT = 62
"""Doublings after which a pause has reached any bound that makes sense; 2.0**1024 would be an OverflowError."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts, in seconds: `first`, doubled with each further failure, never more than `last`.

    Each is multiplied by a random factor from `low` to `high`, so that many who failed together do not come back
    together; `last` bounds the pause before that.
    """

    first: float
    last: float
    low: float = 1.0
    high: float = 1.0

    def pause(self, failures: int, rng: random.Random | None = None) -> float:
        """The pause after `failures` failures before this one (0: after the first). Without `rng` nothing is random."""
        pause = min(self.first * 2.0 ** min(max(failures, 0), _MAX_EXPONENT), self.last)
        return pause if rng is None else pause * rng.uniform(self.low, self.high)


class Mailbox(Generic[T]):
    """Items in order, for one reader at a time: an asynchronous iterator that ends after `end`.

    `limit` items may wait, 0 for any number. `put` waits for room; `post` does not wait: the oldest item makes
    room, and `dropped` counts those that the reader never saw.
    """

    __slots__ = ("_ended", "_error", "_items", "_reader", "_writers", "dropped", "limit")

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.dropped = 0
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] | None = None

    @property
    def ended(self) -> bool:
        """Whether `end` was called; what waits can still be read."""
        return self._ended

    @property
    def full(self) -> bool:
        """Whether `put` would wait."""
        return bool(self.limit) and len(self._items) >= self.limit

    async def put(self, item: T) -> None:
        """Add an item once there is room; after the end it is dropped without an error."""
        while self.full and not self._ended:
            if self._writers is None:
                self._writers = deque()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    # The room came in the same moment: it is the next writer's.
                    self._let_write()
                else:
                    self._writers.remove(waiter)
                raise
        self.post(item)

    def post(self, item: T) -> None:
        """Add an item now; after the end it is dropped without an error."""
        if self._ended:
            return
        if self.full:
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self._let_read()

    def clear(self) -> None:
        """Drop what waits; the writers that wait for room get it one by one, as the reader goes on."""
        self._items.clear()
        self._let_write()

    def end(self, error: BaseException | None = None) -> None:
        """No more items; the reader gets what waits, then `error` if there is one. The first call counts."""
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._let_read()
        while self._writers:
            self._let_write()

    def __aiter__(self) -> Mailbox[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        item = self._items.popleft()
        self._let_write()
        return item

    def _let_read(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _let_write(self) -> None:
        while self._writers:
            waiter = self._writers.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def __len__(self) -> int:
        return len(self._items)


class KeyedLock(Generic[K]):
    """A first-in first-out lock per key; other keys run in parallel, and a key without users takes no memory.

    A lock may be handed over: taken in one task, given back in another. `len()` is the number of keys in use.
    (Locks are almost always uncontended; creating an `asyncio.Lock` per key would dominate their cost.)
    """

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
