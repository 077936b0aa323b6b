# SPDX-License-Identifier: Apache-2.0
"""Registrations come back.

Does:  watches each name that was registered; when the stream breaks (the manager or the registry went away) or says
       that the name is gone though nobody here unregistered it, registers it again, with growing pauses, for ever.
Place: below `Begin` and `Retry`, above `Refresh`, in whoever registers.
State: a task per name.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import Any, ClassVar

import anyio

from nsm_sdk.core import Call, E, Events, Kind, Outcome, Query, RegistryElement, RegistryNext, Runtime, Slot
from nsm_sdk.errors import InvalidRequest, NsmError, PermissionDenied, Unimplemented
from nsm_sdk.registry.begin import Begin

logger = logging.getLogger("nsm_sdk.registry")

FIRST_PAUSE = 0.1
LAST_PAUSE = 5.0
"""Seconds between attempts, doubling from the first to the last."""
FIRST_WORD = 1.0
LAST_WORD = 60.0
"""Seconds within which a new watch must tell of the own entry; doubling while it does not."""
LASTING = 5.0
"""Seconds that a stream must have lived for the pauses to begin anew."""


class Heal(RegistryElement[E]):
    """Register again what somebody else has lost."""

    needs = (Begin,)
    unique: ClassVar[bool] = True

    def __init__(self, kind: Kind[E]) -> None:
        self._kind = kind
        self._watch = Slot[anyio.CancelScope]("watch of the own registration")

    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        name = entry.name
        registered = await next.register(call, entry)
        if self._watch.get(call) is None:
            runtime, events = call.runtime, call.events
            scope = runtime.spawn(lambda: self._follow(runtime, events, name, next), f"watch own {self._kind.label}")
            self._watch.set(call, scope)
        return registered

    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        scope = self._watch.pop(call)
        if scope is not None:
            scope.cancel()
        await next.unregister(call, entry)

    async def _follow(self, runtime: Runtime, events: Events, name: str, next: RegistryNext[E]) -> None:
        failures = 0
        patience = FIRST_WORD
        while True:
            began = runtime.clock.now()
            try:
                told = await self._until_lost(Call(runtime), name, next, patience)
                patience = FIRST_WORD if told else min(2 * patience, LAST_WORD)
            except (PermissionDenied, Unimplemented, InvalidRequest) as error:
                logger.info("%s: cannot watch %s %r: %s", runtime.name, self._kind.label, name, error)
                return
            except NsmError as error:
                logger.info("%s: lost sight of %s %r: %s", runtime.name, self._kind.label, name, error)
            if runtime.clock.now() - began >= LASTING:
                failures = 0
            outcome = Outcome.FAILED
            while outcome is Outcome.FAILED:
                pause = min(FIRST_PAUSE * 2 ** min(failures, 16), LAST_PAUSE) * runtime.dice.uniform(0.5, 1.0)
                failures += 1
                await anyio.sleep(pause)
                outcome = await _again(events)
            if outcome is Outcome.SKIPPED:
                return

    async def _until_lost(self, call: Call, name: str, next: RegistryNext[E], patience: float) -> bool:
        """Return when the entry is lost; whether it was seen before.

        A registry that was restarted between the registration and the watch tells nothing: its silence counts, too.
        """
        query: Any = self._kind.message()
        query.name = name
        async with aclosing(next.find(call, Query(query, watch=True))) as stream:
            with anyio.move_on_after(patience) as silence:
                found = await anext(stream, None)
            if silence.cancelled_caught or found is None or found.deleted:
                return False
            async for found in stream:
                if found.deleted and found.entry.name == name:
                    break
        return True


async def _again(events: Events) -> Outcome:
    """Register again and wait for the outcome."""
    ended = anyio.Event()
    outcomes: list[Outcome] = []

    def done(outcome: Outcome, error: BaseException | None) -> None:
        outcomes.append(outcome)
        ended.set()

    events.refresh(done)
    await ended.wait()
    return outcomes[0]
