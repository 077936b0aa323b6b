# SPDX-License-Identifier: Apache-2.0
"""The life of `nsm run nsc`.

Does:  connects its services one after the other, each try within the request timeout, for ever; takes up connections
       that its manager still knows from an earlier run; closes all of them when told to leave.
Place: behind the role `nsc`.
State: the connections that stand.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from nsm_sdk.api import Connection, Request, ServiceUrl, Snapshot, State
from nsm_sdk.cli.report import Report, facts
from nsm_sdk.cli.roles import nsc, parts
from nsm_sdk.core import Cause, Running
from nsm_sdk.elements import Begin
from nsm_sdk.errors import DeadlineExceeded, NsmError, PermissionDenied, Unauthenticated, Unimplemented
from nsm_sdk.heal import (
    Entry,
    Event,
    Happening,
    Happenings,
    Heal,
    Journal,
    Journals,
    Kind,
    checked_by,
    find_connections,
    log_entries,
    select_anew,
    take_over,
)
from nsm_sdk.heal.model import HEALING_PHASES
from nsm_sdk.mechanisms import own_namespace

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program
    from nsm_sdk.transport import Dialer

logger = logging.getLogger("nsm_sdk.cli")

ASK_TIME = 5.0
"""Seconds that a manager gets to tell of connections of an earlier run, and at most half of a try."""
STEPS = frozenset({Kind.HEARD, Kind.DOWN, Kind.DOUBT, Kind.CHECKED, Kind.WAIT, Kind.ATTEMPT, Kind.FAILED, Kind.GAVE_UP})
"""What healing does between trouble and success."""


class Connecting:
    """The connections of one client."""

    def __init__(
        self,
        program: Program,
        settings: nsc.Settings,
        running: Running,
        dial: Dialer,
        heal: Heal,
        standing: Mapping[str, Snapshot],
    ) -> None:
        self._program = program
        self._settings = settings
        self._running = running
        self._dial = dial
        self._heal = heal
        self._open = standing
        self._asked: set[str] = set()

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
            await anyio.sleep(parts.pause(failures))

    async def _try(self, id: str, service: ServiceUrl) -> None:
        request = Request(mechanism_preferences=[service.mechanism()])
        known = await self._known(id, service)
        if known is not None:
            request.connection.CopyFrom(known)
        else:
            request.connection.id = id
            request.connection.network_service = service.service
        request.connection.labels.update({**self._settings.labels, **service.labels})
        assert self._running.bound.connection is not None
        call = self._running.call(timeout=self._settings.request_timeout)
        await self._running.bound.connection.request(call, request)

    async def _known(self, id: str, service: ServiceUrl) -> Connection | None:
        """The connection of that id which the manager knows from an earlier run. Asked until it has answered once."""
        if id in self._asked:
            return None
        seconds = min(ASK_TIME, self._settings.request_timeout / 2)
        near = self._dial(self._settings.connect_to)
        try:
            found = await find_connections(near, self._running.call(timeout=seconds), [id], patience=seconds)
        except (PermissionDenied, Unauthenticated, Unimplemented) as error:
            logger.info("the manager does not tell of earlier connections: %s", error)
            found = []
        self._asked.add(id)
        for conn in found:
            interface = conn.mechanism.parameters.get("name") or ""
            taken = take_over(conn, id, (service.mechanism_type,))
            if (
                taken is not None
                and taken.path.path_segments[0].name == self._settings.name
                and taken.network_service.partition("@")[0] == service.service.partition("@")[0]
                and service.interface in ("", interface)
            ):
                return await self._checked(taken)
        return None

    async def _checked(self, conn: Connection) -> Connection:
        """What to request in order to keep `conn`; anew where its datapath turns out to be dead."""
        conn.mechanism.parameters["inodeURL"] = self._settings.netns or own_namespace()
        down = conn.state == State.DOWN
        conn.state = State.UP
        alive: bool | None = None
        if self._heal.probe is not None:
            timeout = self._settings.liveness_check_timeout
            check = checked_by(self._heal.probe, self._running.call(), namespace=self._settings.netns, timeout=timeout)
            alive = await check(conn)
        if alive is False or (down and alive is None):
            logger.info("connection %s of an earlier run is dead: selecting anew", conn.id)
            request = Request(connection=conn)
            select_anew(request)
            return request.connection
        logger.info("taking up connection %s of an earlier run", conn.id)
        return conn

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
    generator = parts.tokens("nsc", settings)
    dial = parts.dialer(generator, settings.dial_timeout)
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

    role = nsc.build(settings, program.machine, dial, heal, told)
    assert role.connection is not None
    role.connection = role.connection.insert_after(Begin, Report(program, first_errors=False, heals=heals))
    async with role.serving(drain=0.1) as running:
        connecting = Connecting(program, settings, running, dial, heal, standing)
        program.connections = connecting.facts
        program.ready(())
        scope = running.runtime.spawn(connecting.run, "connect")
        await program.stopped()
        scope.cancel()
        await connecting.close()
