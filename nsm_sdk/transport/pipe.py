# SPDX-License-Identifier: Apache-2.0
"""What one task writes and another reads, within one process.

Does:  passes items on in order, makes the writer wait while the reader is behind, ends with an error or without.
Place: streams of the in-process adapter.
State: the items that wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

BUFFER = 16
"""Messages of a stream that may wait for a reader; then the writer waits."""


class Pipe(Generic[T]):
    """A bounded queue with an end, for one writer and one reader."""

    __slots__ = ("_ended", "_error", "_items", "_wake_reader", "_wake_writer")

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None

    async def put(self, item: T) -> None:
        while len(self._items) >= BUFFER and not self._ended:
            self._wake_writer = asyncio.get_running_loop().create_future()
            await self._wake_writer
        if not self._ended:
            self._items.append(item)
            _wake(self._wake_reader)

    def end(self, error: BaseException | None = None) -> None:
        """No more items; the reader gets what is waiting, then the error if there is one."""
        if not self._ended:
            self._ended = True
            self._error = error
            _wake(self._wake_reader)
            _wake(self._wake_writer)

    def __aiter__(self) -> Pipe[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._wake_reader = asyncio.get_running_loop().create_future()
            await self._wake_reader
        item = self._items.popleft()
        _wake(self._wake_writer)
        return item


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
