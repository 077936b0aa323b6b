# SPDX-License-Identifier: Apache-2.0
"""What an application may want to know of its connection, as a stream.

Does:  `Happenings` hands each `Happening` to the streams that are open for its connection, and to callbacks. A stream
       is bounded: one that is not read loses the oldest, and the next item says how many. The last word, `closed`,
       is never lost.
Place: fed by `Heal`; `Client` exposes a stream as `connection.events()`.
State: the open streams, by connection id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import TypeAlias

from nsm_sdk.api import Snapshot

WAITING = 64
"""Happenings that may wait for a slow reader."""


class Event(StrEnum):
    """What happened."""

    UP = "up"
    """Established for the first time."""
    DOWN = "down"
    """The control plane or the datapath says that it is down."""
    HEALING = "healing"
    HEALED = "healed"
    REFRESHED = "refreshed"
    GAVE_UP = "gave up"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened to a connection."""

    event: Event
    id: str
    """The client's connection id."""
    why: str = ""
    """For people: the reason of `down` and `healing`, what `healed` it."""
    moved: bool = False
    """Whether the endpoint is another one than before."""
    snapshot: Snapshot | None = None
    """The connection as it is now, where there is one."""
    at: float = 0.0
    """Seconds, monotonic."""
    wall: float = 0.0
    """Seconds since the epoch."""
    detect: float | None = None
    repair: float | None = None
    attempts: int | None = None
    """Costs of what ended here, as in the journal."""
    dropped: int = 0
    """How many happenings before this one the reader was too slow for."""


Told: TypeAlias = Callable[[Happening], None]
"""Must not block or raise."""


class Stream:
    """What happens to one connection from now on; an asynchronous iterator that ends after `closed`."""

    def __init__(self, hub: Happenings, id: str, waiting: int) -> None:
        self._hub = hub
        self._id = id
        self._queue: deque[Happening] = deque()
        self._waiting = waiting
        self._dropped = 0
        self._ended = False
        self._wake = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Happening]:
        return self

    async def __anext__(self) -> Happening:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        happening = self._queue.popleft()
        if self._dropped:
            happening, self._dropped = replace(happening, dropped=self._dropped), 0
        return happening

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Listen no longer; what waits can still be read."""
        self._ended = True
        self._wake.set()
        self._hub._leave(self._id, self)

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    def _put(self, happening: Happening) -> None:
        if len(self._queue) >= self._waiting:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append(happening)
        if happening.event is Event.CLOSED:
            self._ended = True
        self._wake.set()


class Happenings:
    """The happenings of a client's connections."""

    def __init__(self, *told: Told) -> None:
        self.told: list[Told] = list(told)
        """Called for every happening of every connection."""
        self._streams: dict[str, list[Stream]] = {}

    def stream(self, id: str, *, waiting: int = WAITING) -> Stream:
        """What happens to connection `id` (the client's own id) from now on."""
        stream = Stream(self, id, max(waiting, 1))
        self._streams.setdefault(id, []).append(stream)
        return stream

    def publish(self, happening: Happening) -> None:
        """Tell everybody who listens."""
        for told in self.told:
            told(happening)
        for stream in self._streams.get(happening.id, ()):
            stream._put(happening)
        if happening.event is Event.CLOSED:
            self._streams.pop(happening.id, None)

    def end(self) -> None:
        """The client ends; so do all streams."""
        for streams in list(self._streams.values()):
            for stream in list(streams):
                stream.close()

    def _leave(self, id: str, stream: Stream) -> None:
        streams = self._streams.get(id)
        if streams is not None and stream in streams:
            streams.remove(stream)
            if not streams:
                del self._streams[id]

    def __len__(self) -> int:
        return sum(map(len, self._streams.values()))
