# SPDX-License-Identifier: Apache-2.0
"""Order, rollback and re-entry of registrations.

Does:  lets one event at a time through per name, in order of arrival. A first registration of an endpoint that fails
       is answered at once and unregistered below, unless the endpoint has been registered before (this hop was
       restarted since). What was registered is remembered: posted refreshes and closes, and unregistrations that bring
       a name only, start from it.
Place: above everything that keeps state for a name; below `UpdatePath` and authorisation, which ask callers only.
State: one `Record` per name.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Generic

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NSE, Call, Cause, E, Kind, Outcome, RegistryElement, RegistryNext, State, cleanup_time
from nsm_sdk.elements.event_queue import EventQueue, Post, QueuedRecord, RecordEvents, time_of
from nsm_sdk.errors import InvalidRequest


class Record(QueuedRecord, Generic[E]):
    """One name of this hop, its `id`. `version` counts registrations."""

    __slots__ = ("_data", "_kind", "next")

    def __init__(
        self, queue: EventQueue[Record[E]], kind: Kind[E], name: str, call: Call, next: RegistryNext[E]
    ) -> None:
        super().__init__(name, call)
        self.events = RecordEvents(queue, self)
        self.next = next
        self._kind = kind
        self._data = b""

    def attempt(self, entry: E) -> int:
        """A first registration begins: this is undone if it fails. Returns how many bytes it has."""
        self._data = entry.SerializeToString()
        return len(self._data)

    def remember(self, registered: E) -> int:
        """What was answered, under the name that the caller uses; without the expiry, which the registry sets again.
        Returns how many bytes that has."""
        stored = self._kind.copy(registered)
        stored.name = self.id
        if "expiration_time" in stored.DESCRIPTOR.fields_by_name:
            stored.ClearField("expiration_time")
        self._data = stored.SerializeToString()
        self.established = True
        self.version += 1
        return len(self._data)

    def remember_call(self, call: Call, remaining: float) -> None:
        """The call that succeeded; `remaining` is the time it had when it began."""
        self.timeout = time_of(remaining)
        # The call is over with this, so what it held can be kept as it is.
        self.peer, self.metadata, self.onward = call.peer, call.metadata, call.onward

    def entry(self) -> E:
        """A copy of the stored entry."""
        message: Any = self._kind.message.FromString(self._data)
        stored: E = message
        return stored


logger = logging.getLogger("nsm_sdk.registry")

UNDO_TIME = 2.0
"""Seconds for undoing a first registration that failed, or finishing an unregistration that was cut off."""


def taken_over(entry: NetworkService | NetworkServiceEndpoint, stored: NetworkService | NetworkServiceEndpoint) -> bool:
    """Whether the name of `entry` belongs to an endpoint with another address by now, as `stored` has it."""
    if not isinstance(entry, NetworkServiceEndpoint) or not isinstance(stored, NetworkServiceEndpoint):
        return False
    return bool(entry.url and stored.url and entry.url != stored.url)


MOST = 262_144
"""Upper bound of the names in one registry: peers create them, and each takes memory."""
MOST_BYTES = 256 << 20
"""Bytes of all of them together: 1 KiB each if there are as many as there may be, which is twice the usual."""


def been_registered(entry: NetworkService | NetworkServiceEndpoint) -> bool:
    """Whether an entry to register has come back from a registry before."""
    return isinstance(entry, NetworkServiceEndpoint) and entry.HasField("initial_registration_time")


class Begin(RegistryElement[E]):
    """Owns the registrations that pass here. InvalidRequest for an empty name; Exhausted for more than `most`, or
    more than `most_bytes` of all of them together."""

    gives_state: ClassVar[bool] = True
    unique: ClassVar[bool] = True

    def __init__(self, kind: Kind[E], *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._kind = kind
        self._queue: EventQueue[Record[E]] = EventQueue(
            f"begin {kind.label}", self._run, most=most, most_bytes=most_bytes, things=f"{kind.label}s"
        )
        self._records, self._locks = self._queue.records, self._queue.locks
        # A service is not its registrant's own: undoing would take it away from all others that offer it.
        self._undoes = kind.label == NSE.label

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        name = entry.name
        if not name:
            raise InvalidRequest(f"the {self._kind.label} to register has no name", hint="set the field `name`")
        self._queue.admit(name, call.size)
        await self._locks.acquire(name)
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = Record(self._queue, self._kind, name, call, next)
        handed_over = False
        again = been_registered(entry)
        try:
            call.state, call.events = record.state, record.events
            if not record.established:
                self._queue.weigh(record, record.attempt(entry))
            remaining = call.remaining()
            registered = await next.register(call, entry)
            record.remember_call(call, remaining)
            self._queue.weigh(record, record.remember(registered))
            return registered
        except BaseException:
            if not record.established:
                handed_over = self._finish_later(record, Cause.ROLLBACK) if self._undoes and not again else False
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
            if call.cause is Cause.CALL and taken_over(entry, stored):
                logger.info("%s: %r is not unregistered: another endpoint has the name", call.runtime.name, name)
                return
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
        self._queue.drop(record)
        for post in record.posts.values():
            post.tell(Outcome.SKIPPED)
        record.posts.clear()

    def _finish_later(self, record: Record[E], cause: Cause) -> bool:
        """Unregister below in a task of its own that takes over the lock; False when this hop has been killed."""

        async def run() -> None:
            try:
                with cleanup_time(UNDO_TIME):
                    await self._close(record, record.call(cause, UNDO_TIME), record.entry())
            except Exception as error:
                logger.info("%s: %s of %r: %s", record.runtime.name, cause, record.id, error)
            finally:
                self._forget(record)

        return self._queue.hand_over(record, cause, run)

    async def _run(self, record: Record[E], post: Post, call: Call) -> None:
        """Do what an element has posted."""
        if post.cause is Cause.CLOSE:
            await self._close(record, call, record.entry())
        else:
            self._queue.weigh(record, record.remember(await record.next.register(call, record.entry())))

    def __len__(self) -> int:
        return len(self._records)

    def names(self) -> list[str]:
        """Names that are registered through this element."""
        return list(self._records)
