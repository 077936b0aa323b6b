# SPDX-License-Identifier: Apache-2.0
"""Order, rollback and re-entry of registrations.

Does:  lets one event at a time through per name, in order of arrival. A first registration of an endpoint that fails
       is answered at once and unregistered below. What was registered is remembered: posted refreshes and closes, and
       unregistrations that bring a name only, start from it.
Place: above everything that keeps state for a name; below `UpdatePath` and authorisation, which ask callers only.
State: one `Record` per name.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import ClassVar

import anyio

from nsm_sdk.core import (
    NSE,
    Call,
    Cause,
    Done,
    E,
    KeyedLock,
    Kind,
    Outcome,
    RegistryElement,
    RegistryNext,
    State,
    Still,
    cleanup_time,
)
from nsm_sdk.errors import Exhausted, InvalidRequest
from nsm_sdk.registry.record import Post, Record

logger = logging.getLogger("nsm_sdk.registry")

UNDO_TIME = 2.0
"""Seconds for undoing a first registration that failed, or finishing an unregistration that was cut off."""


MOST = 262_144
"""Names of one registry. Peers make them, and each takes memory, so there must be an end."""


class Begin(RegistryElement[E]):
    """Own the registrations that pass here. InvalidRequest for an empty name; Exhausted for more than `most`."""

    gives_state: ClassVar[bool] = True
    unique: ClassVar[bool] = True

    def __init__(self, kind: Kind[E], *, most: int = MOST) -> None:
        self._most = most
        self._kind = kind
        self._records: dict[str, Record[E]] = {}
        self._locks: KeyedLock[str] = KeyedLock()
        # A service is not its registrant's own: undoing would take it away from everybody else who offers it.
        self._undoes = kind.label == NSE.label

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        name = entry.name
        if not name:
            raise InvalidRequest(f"a {self._kind.label} needs a name", hint="set the field `name`")
        if len(self._records) >= self._most and name not in self._records:
            raise Exhausted(
                f"{len(self._records)} {self._kind.label}s are registered here, as many as there may be",
                hint="unregister some",
            )
        await self._locks.acquire(name)
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = Record(self, self._kind, name, call, next)
        handed_over = False
        try:
            call.state, call.events = record.state, record.events
            if not record.established:
                record.attempt(entry)
            remaining = call.remaining()
            registered = await next.register(call, entry)
            record.remember_call(call, remaining)
            record.remember(registered)
            return registered
        except BaseException:
            if not record.established:
                handed_over = self._finish_later(record, Cause.ROLLBACK) if self._undoes else False
                if not handed_over:
                    self._forget(record)
            raise
        finally:
            if not handed_over:
                self._locks.release(name)

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        """An entry that is not known here may be known below: this hop may have been restarted.

        After an error the name is still known, so that the caller can try again; after a cancellation it is finished
        without the caller.
        """
        name = entry.name
        if not name:
            return
        await self._locks.acquire(name)
        handed_over = False
        record = self._records.get(name)
        try:
            if record is None:
                call.state = State()
                await next.unregister(call, entry)
                return
            call.state, call.events = record.state, record.events
            stored = record.entry()
            if entry.path_ids:
                stored.path_ids[:] = entry.path_ids
            await record.next.unregister(call, stored)
            self._forget(record)
        except BaseException as error:
            if record is not None and not isinstance(error, Exception):
                handed_over = self._finish_later(record, Cause.CLOSE)
            raise
        finally:
            if not handed_over:
                self._locks.release(name)

    async def _close(self, record: Record[E], call: Call, stored: E) -> None:
        """Unregister below; the record goes whatever comes of it, because what is left below expires."""
        try:
            await record.next.unregister(call, stored)
        finally:
            self._forget(record)

    def _forget(self, record: Record[E]) -> None:
        record.established = False
        if self._records.get(record.name) is record:
            del self._records[record.name]
        for post in record.posts.values():
            post.tell(Outcome.SKIPPED)
        record.posts.clear()

    # -- what runs by itself ----------------------------------------------------------------------------------------

    def _finish_later(self, record: Record[E], cause: Cause) -> bool:
        """Unregister below in a task of its own that takes over the lock; False when this hop has been killed."""
        if record.runtime.killed:
            return False

        async def run() -> None:
            try:
                with cleanup_time(UNDO_TIME):
                    await self._close(record, record.call(cause, UNDO_TIME), record.entry())
            except Exception as error:
                logger.info("%s: %s of %r: %s", record.runtime.name, cause, record.name, error)
            finally:
                self._forget(record)
                self._locks.release(record.name)

        self._spawn(record, cause, run)
        return True

    def post(self, record: Record[E], cause: Cause, done: Done | None, still: Still | None = None) -> None:
        """Run an event once its turn has come; joins one of its kind that has not begun."""
        if self._records.get(record.name) is not record:
            if done is not None:
                done(Outcome.SKIPPED, None)
            return
        post = record.posts.get(cause)
        fresh = post is None
        if post is None:
            post = record.posts[cause] = Post()
        post.join(record.version, done, still)
        if fresh:
            self._spawn(record, cause, lambda: self._run(record, cause, post))

    async def _run(self, record: Record[E], cause: Cause, post: Post) -> None:
        await self._locks.acquire(record.name)
        try:
            if record.posts.get(cause) is not post:
                return  # an unregistration has told it that it is needless
            del record.posts[cause]
            outdated = cause is Cause.CLOSE and post.version != record.version
            if not record.established or outdated or not post.wanted():
                post.tell(Outcome.SKIPPED)
                return
            call = record.call(cause, record.timeout)
            try:
                with anyio.fail_after(record.timeout):
                    if cause is Cause.CLOSE:
                        await self._close(record, call, record.entry())
                    else:
                        record.remember(await record.next.register(call, record.entry()))
            except Exception as error:
                post.tell(Outcome.FAILED, record.runtime.explain(error))
            else:
                post.tell(Outcome.DONE)
        finally:
            self._locks.release(record.name)

    def _spawn(self, record: Record[E], cause: Cause, fn: Callable[[], Awaitable[None]]) -> None:
        record.runtime.spawn(fn, f"begin {self._kind.label}: {cause}")

    def __len__(self) -> int:
        return len(self._records)

    def names(self) -> list[str]:
        """Names that are registered through this element."""
        return list(self._records)
