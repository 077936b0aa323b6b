# SPDX-License-Identifier: Apache-2.0
"""The life of `nsm run nsc`.

Does:  connects its services one after the other, each try within the request timeout, for ever; closes all of them
       when told to leave.
Place: behind the role `nsc`.
State: the connections that stand.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from nsm_sdk.api import Connection, Request, ServiceUrl, Snapshot
from nsm_sdk.cli.report import Report, facts
from nsm_sdk.cli.roles import nsc, parts
from nsm_sdk.core import Cause, Running
from nsm_sdk.elements import Begin
from nsm_sdk.errors import DeadlineExceeded, NsmError
from nsm_sdk.heal import (
    Entry,
    Event,
    Happening,
    Happenings,
    Journal,
    Journals,
    Kind,
    log_entries,
)
from nsm_sdk.heal.model import HEALING_PHASES

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program

logger = logging.getLogger("nsm_sdk.cli")

STEPS = frozenset({Kind.HEARD, Kind.DOWN, Kind.DOUBT, Kind.CHECKED, Kind.WAIT, Kind.ATTEMPT, Kind.FAILED, Kind.GAVE_UP})
"""What healing does between trouble and success."""


class Connecting:
    """The connections of one client."""

    def __init__(
        self,
        program: Program,
        settings: nsc.Settings,
        running: Running,
        standing: Mapping[str, Snapshot],
    ) -> None:
        self._program = program
        self._settings = settings
        self._running = running
        self._open = standing

    async def run(self) -> None:
        """Connect every service, in order."""
        for index, service in enumerate(self._settings.services()):
            await self._connect(f"{self._settings.name}-{index}", service)

    async def _connect(self, id: str, service: ServiceUrl) -> None:
        failures = 0
        while True:
            began = self._running.runtime.clock.now()
            try:
                with anyio.fail_after(self._settings.request_timeout):
                    await self._try(id, service)
            except TimeoutError:
                error: NsmError = DeadlineExceeded(
                    f"no answer within {self._settings.request_timeout:g} s",
                    hop=self._settings.name,
                    hint="look at the manager's log, or allow more time with NSM_REQUEST_TIMEOUT",
                )
            except Exception as failed:
                # Also a defect of ours must not end the tries.
                error = self._running.runtime.explain(failed)
            else:
                return
            failures += 1
            spent = self._running.runtime.clock.now() - began
            self._program.error(error, id=id, service=service.service, ms=round(spent * 1000, 3))
            await anyio.sleep(parts.pause(failures, error))

    async def _try(self, id: str, service: ServiceUrl) -> None:
        request = Request(mechanism_preferences=[service.mechanism()])
        request.connection.id = id
        request.connection.network_service = service.service
        request.connection.labels.update({**self._settings.labels, **service.labels})
        assert self._running.bound.connection is not None
        call = self._running.call(timeout=self._settings.request_timeout)
        await self._running.bound.connection.request(call, request)

    def facts(self) -> Sequence[Mapping[str, Any]]:
        """What the admin socket says of the connections."""
        return [parts.connection_facts(snapshot.connection()) for snapshot in self._open.values()]

    async def close(self) -> None:
        """Close everything at the same time; what nobody answers for is left to expire."""
        seconds = self._program.closing_time()
        async with anyio.create_task_group() as tasks:
            for snapshot in list(self._open.values()):
                tasks.start_soon(self._close, snapshot.connection(), seconds)

    async def _close(self, conn: Connection, seconds: float) -> None:
        assert self._running.bound.connection is not None
        try:
            with anyio.fail_after(seconds):
                await self._running.bound.connection.close(self._running.call(timeout=seconds), conn)
        except (NsmError, TimeoutError) as error:
            logger.warning("cannot close %s, it will expire: %s", conn.id, error)


class Telling:
    """Event lines and journal entries of what healing does."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def happened(self, happening: Happening) -> None:
        """Print what users want to know."""
        about = {"id": happening.id} if happening.snapshot is None else facts(happening.snapshot.connection())
        match happening.event:
            case Event.HEALING:
                self._program.emit("healing", **about, why=happening.why)
            case Event.HEALED:
                ms = None if happening.repair is None else round(happening.repair * 1000, 3)
                self._program.emit("healed", **about, moved=happening.moved, why=happening.why, ms=ms)

    def noted(self, journal: Journal, entry: Entry) -> None:
        """Keep the steps between for whoever asks."""
        if entry.kind in STEPS:
            cost = {} if entry.detect is None else {"detect_ms": round(entry.detect * 1000, 3)}
            self._program.journal.note({"event": entry.kind, "id": journal.id, "text": entry.text, **cost})


async def connect_all(program: Program, settings: nsc.Settings) -> None:
    """Serve the client's chain, connect, and close when the program is told to leave."""
    telling = Telling(program)
    heal = nsc.healing(settings, Journals([log_entries, telling.noted]), Happenings(telling.happened))

    def heals(id: str) -> bool:
        standing = heal.standing(id)
        return standing is not None and standing.phase in HEALING_PHASES

    standing: dict[str, Snapshot] = {}

    def told(cause: Cause, snapshot: Snapshot, is_open: bool) -> None:
        if is_open:
            standing[snapshot.id] = snapshot
        else:
            standing.pop(snapshot.id, None)

    role = nsc.build(settings, program.machine, heal, told)
    assert role.connection is not None
    role.connection = role.connection.insert_after(Begin, Report(program, first_errors=False, heals=heals))
    async with role.serving(drain=0.1) as running:
        connecting = Connecting(program, settings, running, standing)
        program.connections = connecting.facts
        program.ready(())
        scope = running.runtime.spawn(connecting.run, "connect")
        await program.stopped()
        scope.cancel()
        await connecting.close()
