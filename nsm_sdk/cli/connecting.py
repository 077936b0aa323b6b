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
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

from nsm_sdk.api import Connection, PathSegment, Request, Selector, ServiceUrl, Snapshot, State
from nsm_sdk.cli.report import Report
from nsm_sdk.cli.roles import nsc, parts
from nsm_sdk.core import Running
from nsm_sdk.elements import Begin
from nsm_sdk.errors import DeadlineExceeded, NsmError, PermissionDenied, Unauthenticated, Unimplemented
from nsm_sdk.mechanisms import own_namespace

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program
    from nsm_sdk.transport import Dialer

logger = logging.getLogger("nsm_sdk.cli")

ASK_TIME = 5.0
"""Seconds that a manager gets to tell of connections of an earlier run, and at most half of a try."""


class Connecting:
    """The connections of one client."""

    def __init__(self, program: Program, settings: nsc.Settings, running: Running, dial: Dialer) -> None:
        self._program = program
        self._settings = settings
        self._running = running
        self._dial = dial
        self._open: dict[str, Snapshot] = {}
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
                    conn = await self._try(id, service)
            except TimeoutError:
                error: NsmError = DeadlineExceeded(
                    f"no answer within {self._settings.request_timeout:g} s",
                    hop=self._settings.name,
                    hint="look at the manager's log, or allow more time with NSM_REQUEST_TIMEOUT",
                )
            except NsmError as failed:
                error = failed
            else:
                self._open[id] = Snapshot.of(conn)
                return
            failures += 1
            spent = self._running.runtime.clock.now() - began
            self._program.error(error, id=id, service=service.service, ms=round(spent * 1000, 3))
            await anyio.sleep(parts.pause(failures))

    async def _try(self, id: str, service: ServiceUrl) -> Connection:
        request = Request(mechanism_preferences=[service.mechanism()])
        known = await self._known(id)
        if known is not None and self._fits(known, id, service):
            request.connection.CopyFrom(known)
            self._resume(request.connection)
        else:
            request.connection.id = id
            request.connection.network_service = service.service
        request.connection.labels.update({**self._settings.labels, **service.labels})
        assert self._running.bound.connection is not None
        call = self._running.call(timeout=self._settings.request_timeout)
        return await self._running.bound.connection.request(call, request)

    async def _known(self, id: str) -> Connection | None:
        """The connection of that id which the manager knows from an earlier run. Asked until it has answered once."""
        if id in self._asked:
            return None
        monitor = self._dial(self._settings.connect_to).monitor
        if monitor is None:
            return None
        seconds = min(ASK_TIME, self._settings.request_timeout / 2)
        selector = Selector(path_segments=[PathSegment(name=self._settings.name, id=id)])
        found: Connection | None = None
        try:
            with anyio.move_on_after(seconds):
                async with aclosing(monitor.watch(self._running.call(timeout=seconds), selector)) as events:
                    async for event in events:
                        self._asked.add(id)
                        found = next((conn for conn in event.connections.values() if _begins_with(conn, id)), None)
                        break
        except (PermissionDenied, Unauthenticated, Unimplemented) as error:
            self._asked.add(id)
            logger.info("the manager does not tell of earlier connections: %s", error)
        return found

    def _fits(self, conn: Connection, id: str, service: ServiceUrl) -> bool:
        own = conn.path.path_segments[0]
        interface = conn.mechanism.parameters.get("name") or ""
        return (
            own.name == self._settings.name
            and conn.network_service.partition("@")[0] == service.service.partition("@")[0]
            and conn.mechanism.type == service.mechanism_type
            and service.interface in ("", interface)
        )

    def _resume(self, conn: Connection) -> None:
        """Make a connection, as its manager sees it, one of ours again."""
        conn.id = conn.path.path_segments[0].id
        conn.path.index = 0
        conn.mechanism.parameters["inodeURL"] = self._settings.netns or own_namespace()
        if conn.state == State.DOWN:
            conn.ClearField("mechanism")
            conn.network_service_endpoint_name = ""
            conn.state = State.RESELECT_REQUESTED
        logger.info("taking up connection %s of an earlier run", conn.id)

    def facts(self) -> Sequence[Mapping[str, Any]]:
        """What the admin socket says of the connections."""
        return [parts.connection_facts(snapshot.connection()) for snapshot in self._open.values()]

    async def close(self) -> None:
        """Close everything at the same time; what nobody answers for is left to expire."""
        seconds = self._program.closing_time()
        async with anyio.create_task_group() as tasks:
            for snapshot in self._open.values():
                tasks.start_soon(self._close, snapshot.connection(), seconds)

    async def _close(self, conn: Connection, seconds: float) -> None:
        assert self._running.bound.connection is not None
        try:
            with anyio.fail_after(seconds):
                await self._running.bound.connection.close(self._running.call(timeout=seconds), conn)
        except (NsmError, TimeoutError) as error:
            logger.warning("cannot close %s, it will expire: %s", conn.id, error)


def _begins_with(conn: Connection, id: str) -> bool:
    segments = conn.path.path_segments
    return len(segments) > 1 and segments[0].id == id and conn.path.index == 1


async def connect_all(program: Program, settings: nsc.Settings) -> None:
    """Serve the client's chain, connect, and close when the program is told to leave."""
    generator = parts.tokens("nsc", settings)
    dial = parts.dialer(generator, settings.dial_timeout)
    role = nsc.build(settings, program.machine, dial)
    assert role.connection is not None
    role.connection = role.connection.insert_after(Begin, Report(program, first_errors=False))
    async with role.serving(drain=0.1) as running:
        connecting = Connecting(program, settings, running, dial)
        program.connections = connecting.facts
        program.ready(())
        scope = running.runtime.spawn(connecting.run, "connect")
        await program.stopped()
        scope.cancel()
        await connecting.close()
