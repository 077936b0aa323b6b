# SPDX-License-Identifier: Apache-2.0
"""The life of `nsm run nsc`.

Does:  connects its services one after the other, each try within the request timeout, for ever; closes all of them
       when told to leave.
Place: behind the role `nsc`.
State: none; the connections are the client's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nsm_sdk.api import Request
from nsm_sdk.cli.report import Report, facts
from nsm_sdk.cli.roles import nsc, parts
from nsm_sdk.client import request_for
from nsm_sdk.elements import Begin
from nsm_sdk.errors import NsmError
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

STEPS = frozenset({Kind.HEARD, Kind.DOWN, Kind.DOUBT, Kind.CHECKED, Kind.WAIT, Kind.ATTEMPT, Kind.FAILED, Kind.GAVE_UP})
"""What healing does between trouble and success."""


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

    def failed(request: Request, error: NsmError, seconds: float) -> None:
        conn = request.connection
        program.error(error, id=conn.id, service=conn.network_service, ms=round(seconds * 1000, 3))

    client = nsc.client(settings, program.machine, heal, failed)
    assert client.role.connection is not None
    client.role.connection = client.role.connection.insert_after(
        Begin, Report(program, first_errors=False, heals=heals)
    )

    async def connect() -> None:
        for index, service in enumerate(settings.services()):
            request = request_for(service, id=f"{settings.name}-{index}", labels=settings.labels)
            await client.open(request, timeout=math.inf)

    await client.start()
    try:
        program.connections = lambda: [parts.connection_facts(one.connection) for one in client.connections]
        program.ready(())
        connecting = client.running.runtime.spawn(connect, "connect")
        await program.stopped()
        connecting.cancel()
    finally:
        await client.stop(timeout=program.closing_time())
