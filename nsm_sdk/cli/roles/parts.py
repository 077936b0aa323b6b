# SPDX-License-Identifier: Apache-2.0
"""What the roles' programs share when they run.

Does:  identity, tokens, ways out, listeners; a registration that is kept for ever; a role served until the program is
       told to leave.
Place: below the roles' modules; imported only when a role runs.
State: none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import stat
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels, Selector, Target
from nsm_sdk.chains import registrant
from nsm_sdk.cli.report import Report, ReportOwn, ReportRegistry, entry_facts, facts
from nsm_sdk.cli.roles.common import Common
from nsm_sdk.core import NSE, Listen, Query, Role, Running, Secret, dice, find_all
from nsm_sdk.elements import Begin, Hub
from nsm_sdk.errors import NsmError, pushback
from nsm_sdk.registry import Begin as BeginRegistration
from nsm_sdk.registry import Heal
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.transport import Dialer, listen

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program

logger = logging.getLogger("nsm_sdk.cli")

FIRST_PAUSE = 0.05
LAST_PAUSE = 2.0
"""Pauses between tries, doubling from the first to the last; never more than 20 tries a second. Seconds."""
REGISTER_TIME = 15.0
"""Seconds of one try to register."""
UNREGISTER_TIME = 3.0
_SECRET_BYTES = 32


def pause(failures: int, error: BaseException | None = None) -> float:
    """Seconds until the next try, after that many failures in a row, counted from 1; longer where `error` says so."""
    pause: float = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 32), LAST_PAUSE) * dice().uniform(1.0, 1.25)
    return max(pause, pushback(error))


def not_yet(name: str) -> None:
    """Say that a setting is understood and has no effect in this version."""
    logger.warning("%s is set, but this version cannot use it yet", name)


def tokens(role: str, settings: Common) -> TokenGenerator:
    """What signs for this program."""
    source = Insecure(role, settings.name, subject=settings.insecure_subject)
    return TokenGenerator(source, max_lifetime=settings.max_token_lifetime)


def dialer(generator: TokenGenerator, timeout: float) -> Dialer:
    """The ways out; `timeout` in seconds for a peer that is not there."""
    return Dialer(generator, dial_timeout=timeout)


def kept_secret(folder: Path) -> str:
    """The secret in `folder` from which a hop derives connection ids: 64 hexadecimal digits in the file `secret`, made
    when there is none. Where it cannot be kept, or is not to be trusted, one warning, and one for this run only."""
    path = folder / "secret"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _read_secret(path)
        except FileNotFoundError:
            _make_secret(path)
            return _read_secret(path)
    except (OSError, ValueError) as error:
        logger.warning(
            "%s: %s: connections are not recognized after a restart; make NSM_STATE_DIR a folder that this program may "
            "write, and %s a file that only its user may read",
            path,
            getattr(error, "strerror", None) or error,
            path.name,
        )
        return Secret(secrets.token_hex(_SECRET_BYTES))


def _read_secret(path: Path) -> str:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise ValueError("it is not a file of this program's user")
        if found.st_mode & 0o077:
            raise ValueError(f"others may use it: its mode is {stat.S_IMODE(found.st_mode):04o}, expected 0600")
        data = os.read(handle, 2 * _SECRET_BYTES + 2)
    finally:
        os.close(handle)
    text = data.removesuffix(b"\n").decode("ascii", "replace")
    if len(text) != 2 * _SECRET_BYTES or not set(text) <= set("0123456789abcdef"):
        # The content stays out of the message: it may be nearly right.
        raise ValueError(f"it does not hold {2 * _SECRET_BYTES} hexadecimal digits")
    return Secret(text)


def _make_secret(path: Path) -> None:
    """Writes a new one, whole or not at all; where another program was quicker, its own stays."""
    draft = f"{path}.{secrets.token_hex(4)}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "w") as file:
            file.write(secrets.token_hex(_SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)


def listeners(targets: Sequence[Target]) -> list[Listen]:
    """Listeners for `Role.serving`. Socket files are for everybody who may enter their folder, as upstream's are."""
    return [listen(target.url, mode=0o777) for target in targets]


def reported(role: Role, program: Program) -> Role:
    """The role, with event lines of its connections and registrations."""
    if role.connection is not None and role.connection.find(Begin) is not None:
        role.connection = role.connection.insert_after(Begin, Report(program))
    if role.nse is not None:
        role.nse = role.nse.insert_after(BeginRegistration, ReportRegistry(program, NSE))
    return role


async def serve_until_stopped(
    program: Program,
    role: Role,
    targets: Sequence[Target],
    *,
    begin: Callable[[Running], object] | None = None,
) -> None:
    """Serve `role`, print the ready line, and come back when the program is told to leave."""
    async with role.serving(listen=listeners(targets), drain=program.drain_time) as running:
        if begin is not None:
            begin(running)
        tell(program, running)
        program.ready(running.urls)
        await program.stopped()


def tell(program: Program, running: Running) -> None:
    """Let the admin socket answer from what runs here."""
    from nsm_sdk.elements import Monitor

    monitor = running.find(Monitor)
    if monitor is not None:
        hub: Hub = monitor.hub
        program.connections = lambda: [connection_facts(conn) for conn in hub.connections(Selector())]
    if running.bound.nse is not None:
        bound = running.bound.nse

        async def registrations() -> Sequence[Mapping[str, Any]]:
            call = running.call(timeout=5.0)
            return [entry_facts(entry) for entry in await find_all(bound, call, Query(NetworkServiceEndpoint()))]

        program.registrations = registrations


def connection_facts(conn: Connection) -> dict[str, Any]:
    """What the admin socket says of a connection."""
    from nsm_sdk.api import state_name

    return {**facts(conn), "state": state_name(conn.state)}


class Registration:
    """An endpoint that is kept registered for ever, with its services if those are wanted."""

    def __init__(
        self,
        program: Program,
        dial: Dialer,
        *,
        manager: str,
        services: Sequence[str],
        labels: Mapping[str, str],
        payload: str = "",
        register_services: bool = True,
    ) -> None:
        self._program = program
        self._services = tuple(services)
        self._labels = dict(labels)
        self._payload = payload
        self._register_services = register_services
        name = program.settings.name
        role = registrant(name, manager=manager, dial=dial, try_time=REGISTER_TIME)
        assert role.nse is not None
        role.nse = role.nse.insert_after(Heal, ReportOwn(program, NSE))
        self.role = role
        self._entry: NetworkServiceEndpoint | None = None

    async def keep(self, running: Running, url: str) -> None:
        """Register at `url`, trying for ever; refreshing and healing go on in the background."""
        if self._register_services:
            for name in self._services:
                await self._until_done(name, partial(self._service, running, name))
        await self._until_done(self._program.settings.name, partial(self._endpoint, running, url))

    async def _until_done(self, what: str, attempt: Callable[[], Coroutine[Any, Any, None]]) -> None:
        failures = 0
        while True:
            try:
                await attempt()
            except Exception as error:
                failures += 1
                logger.warning("cannot register %s: %s", what, error)
                await anyio.sleep(pause(failures, error))
            else:
                return

    async def _service(self, running: Running, name: str) -> None:
        assert running.bound.ns is not None
        await running.bound.ns.register(running.call(), NetworkService(name=name, payload=self._payload))

    async def _endpoint(self, running: Running, url: str) -> None:
        assert running.bound.nse is not None
        entry = NetworkServiceEndpoint(name=self._program.settings.name, url=url, network_service_names=self._services)
        for name in self._services:
            entry.network_service_labels[name].CopyFrom(NetworkServiceLabels(labels=self._labels))
        self._entry = await running.bound.nse.register(running.call(), entry)

    async def drop(self, running: Running) -> None:
        """Unregister, within a short time; what cannot be told expires."""
        if self._entry is None or running.bound.nse is None:
            return
        time = min(self._program.closing_time(), UNREGISTER_TIME)
        try:
            with anyio.fail_after(time):
                await running.bound.nse.unregister(running.call(timeout=time), self._entry)
        except (NsmError, TimeoutError) as error:
            logger.warning("cannot unregister %s, it will expire: %s", self._program.settings.name, error)

    def facts(self) -> list[Mapping[str, Any]]:
        """What the admin socket says of it."""
        return [] if self._entry is None else [entry_facts(self._entry)]


async def serve_registered(
    program: Program, role: Role, targets: Sequence[Target], registration: Registration, *, unregister: bool
) -> None:
    """Serve `role` and keep it registered until the program is told to leave."""
    async with (
        registration.role.serving(drain=0.1) as registering,
        role.serving(listen=listeners(targets), drain=program.drain_time) as running,
    ):
        tell(program, running)

        async def registrations() -> Sequence[Mapping[str, Any]]:
            return registration.facts()

        program.registrations = registrations
        program.ready(running.urls)
        keeping = registering.runtime.spawn(
            lambda: registration.keep(registering, public_url(running.urls[:1])), "register"
        )
        await program.stopped()
        if unregister:
            keeping.cancel()
            await registration.drop(registering)
        # What stands is left to expire, and what is under way is not undone: that would wait for a dead manager.
        registering.kill()


def public_url(urls: Sequence[str]) -> str:
    """Of where a manager listens, what it tells other nodes: TCP before unix, a real address before "all of them"."""
    tcp = [Target.parse(url) for url in urls if url.startswith("tcp:")]
    if not tcp:
        return urls[0]
    return next((target.url for target in tcp if target.host not in ("", "0.0.0.0", "::")), "") or _own_url(tcp[0].port)


def _own_url(port: int) -> str:
    """This machine's address towards others, found without sending anything; the loopback address where it has none."""
    for family, far, form in (
        (socket.AF_INET, "192.0.2.1", "tcp://{}:{}"),
        (socket.AF_INET6, "2001:db8::1", "tcp://[{}]:{}"),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((far, 9))
                return form.format(probe.getsockname()[0], port)
            except OSError:
                continue
    return f"tcp://127.0.0.1:{port}"
