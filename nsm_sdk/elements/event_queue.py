# SPDX-License-Identifier: Apache-2.0
"""One event at a time per id: the half that `Begin` of connections and `Begin` of registrations share.

Records are kept by id, with a lock each, first come first served. `RecordEvents` is the `Events` that elements see:
what they post joins what waits already, and runs later in a task of its own, with a fresh `Call`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

import anyio

from nsm_sdk.api import Request
from nsm_sdk.core import (
    NO_EVENTS,
    NOBODY,
    Call,
    Cause,
    Done,
    Events,
    KeyedLock,
    Outcome,
    Peer,
    Runtime,
    Service,
    State,
    Still,
)
from nsm_sdk.errors import Exhausted

Edit: TypeAlias = Callable[[Request], None]

DEFAULT_TIMEOUT = 15.0
"""Seconds for what Begin starts itself, when the first call came without a deadline."""


class Post:
    """One posted event that has not run yet; duplicates have joined it."""

    __slots__ = ("cause", "dones", "edit", "stills", "version")

    def __init__(self, cause: Cause, edit: Edit | None = None) -> None:
        self.cause = cause
        self.edit = edit
        self.version = 0
        """The record's, when it was posted last."""
        self.dones: list[Done] = []
        self.stills: list[Still | None] = []

    def needed(self) -> bool:
        """Whether anybody who posted wants it still."""
        return any(still is None or still() for still in self.stills)

    def tell(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Let everybody who posted know how it ended."""
        for done in self.dones:
            done(outcome, error)


class QueuedRecord:
    """What there is of one id, whatever it is the id of."""

    __slots__ = (
        "established",
        "events",
        "id",
        "metadata",
        "onward",
        "peer",
        "posts",
        "runtime",
        "size",
        "state",
        "timeout",
        "version",
    )

    def __init__(self, id: str, call: Call) -> None:
        self.id = id
        self.runtime: Runtime = call.runtime
        self.state = State()
        self.events: Events = NO_EVENTS
        self.established = False
        self.size = 0
        """Bytes of what is stored."""
        self.version = 0
        """Where it counts up, a close that was posted before is needless."""
        self.timeout = time_of(call.remaining())
        self.peer: Peer = NOBODY
        self.metadata = self.onward = _NOTHING
        self.posts: dict[Cause, Post] = {}

    def call(self, cause: Cause, timeout: float) -> Call:
        """A fresh `Call` for something that Begin starts itself."""
        return Call(
            self.runtime,
            self.peer,
            self.metadata,
            self.runtime.clock.now() + timeout,
            self.state,
            cause,
            events=self.events,
            onward=dict(self.onward),
        )


R = TypeVar("R", bound=QueuedRecord)
_NOTHING: Mapping[str, str] = MappingProxyType({})


class EventQueue(Service, Generic[R]):
    """The records of one `Begin`. `run` does what was posted; the record's lock is held meanwhile.

    `name` is that of its tasks; `finishes` are the causes that a hop which shuts down in good order still finishes.
    `most` records there may be, and `most_bytes` of what they store; `things` is what to call them. A chain that is
    served again starts without the records of the last time, whose tasks are gone.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[R, Post, Call], Awaitable[None]],
        *,
        most: int,
        most_bytes: int,
        things: str,
        finishes: frozenset[Cause] = frozenset(),
    ) -> None:
        self.records: dict[str, R] = {}
        self.locks: KeyedLock[str] = KeyedLock()
        self.bytes = 0
        self._most = most
        self._most_bytes = most_bytes
        self._things = things
        self._name = name
        self._run = run
        self._finishes = finishes

    async def start(self, runtime: Runtime) -> None:
        self.records.clear()
        self.bytes = 0

    def admit(self, id: str, size: int) -> None:
        """Raise Exhausted where a message of `size` bytes would make a record, or a larger one, for which there is no
        room."""
        record = self.records.get(id)
        if record is None and len(self.records) >= self._most:
            raise Exhausted(
                f"there are {len(self.records)} {self._things} here, as many as this hop takes",
                hint="close some, or spread them over more hops",
            )
        more = size - (0 if record is None else record.size)
        if more > 0 and self.bytes + more > self._most_bytes:
            raise Exhausted(
                f"the {self._things} here take {self.bytes} bytes, {more} more would be over {self._most_bytes}",
                hint="send less with each, close some, or spread them over more hops",
            )

    def weigh(self, record: R, size: int) -> None:
        """`record` stores that many bytes now."""
        self.bytes += size - record.size
        record.size = size

    def drop(self, record: R) -> None:
        """Forget it, if it is there still."""
        if self.holds(record):
            del self.records[record.id]
            self.bytes -= record.size

    def holds(self, record: R) -> bool:
        """Whether that very record is still the one of its id."""
        return self.records.get(record.id) is record

    def post(
        self, record: R, cause: Cause, edit: Edit | None = None, done: Done | None = None, still: Still | None = None
    ) -> None:
        """Run an event of `record` once its turn has come; joins one of its kind that has not begun."""
        post = record.posts.get(cause)
        fresh = post is None
        if post is None:
            post = record.posts[cause] = Post(cause, edit)
        post.version = record.version
        if done is not None:
            post.dones.append(done)
        post.stills.append(still)
        if fresh:
            self.spawn(record, cause, lambda: self._take(record, post))

    async def _take(self, record: R, post: Post) -> None:
        await self.locks.acquire(record.id)
        try:
            if record.posts.get(post.cause) is not post:
                return  # a close has told it that it is needless
            del record.posts[post.cause]
            outdated = post.cause is Cause.CLOSE and post.version != record.version
            if not record.established or outdated or not self.holds(record) or not post.needed():
                post.tell(Outcome.SKIPPED)
                return
            call = record.call(post.cause, record.timeout)
            try:
                with anyio.fail_after(record.timeout):
                    await self._run(record, post, call)
            except Exception as error:
                post.tell(Outcome.FAILED, record.runtime.explain(error))
            else:
                post.tell(Outcome.DONE)
        finally:
            self.locks.release(record.id)

    def hand_over(self, record: R, cause: Cause, fn: Callable[[], Awaitable[None]]) -> bool:
        """Run `fn` in a task of its own that takes over the lock; False when this hop has been killed."""
        if record.runtime.killed:
            return False

        async def run() -> None:
            try:
                await fn()
            finally:
                self.locks.release(record.id)

        self.spawn(record, cause, run)
        return True

    def spawn(self, record: R, cause: Cause, fn: Callable[[], Awaitable[None]]) -> None:
        """Run `fn` in a task of its own."""
        record.runtime.spawn(fn, f"{self._name}: {cause}", finish=cause in self._finishes)


class RecordEvents(Events, Generic[R]):
    """The events of one record."""

    __slots__ = ("_queue", "_record")

    def __init__(self, queue: EventQueue[R], record: R) -> None:
        self._queue = queue
        self._record = record

    def refresh(self, done: Done | None = None, still: Still | None = None) -> None:
        self._queue.post(self._record, Cause.REFRESH, None, done, still)

    def close(self, done: Done | None = None) -> None:
        self._queue.post(self._record, Cause.CLOSE, None, done)


def time_of(remaining: float) -> float:
    """Seconds for what Begin starts itself, by what a call had."""
    return remaining if 0 < remaining < float("inf") else DEFAULT_TIMEOUT
