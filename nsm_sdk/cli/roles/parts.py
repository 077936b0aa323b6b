# SPDX-License-Identifier: Apache-2.0
"""What the roles' programs share when they run.

Does:  identity, tokens, ways out, listeners; a role served until the program is
       told to leave.
Place: below the roles' modules; imported only when a role runs.
State: none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsm_sdk.api import Connection, NetworkServiceEndpoint, Selector, Target
from nsm_sdk.cli.report import Report, ReportOwn, ReportRegistry, entry_facts, facts
from nsm_sdk.cli.roles.common import Common
from nsm_sdk.core import NSE, Listen, Query, Role, Running, Secret, find_all
from nsm_sdk.elements import Begin, Hub
from nsm_sdk.endpoint import RegisteredRole
from nsm_sdk.registry import Heal, RegistryBegin
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.transport import Dialer, listen

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program

logger = logging.getLogger("nsm_sdk.cli")
_SECRET_BYTES = 32


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
        role.nse = role.nse.insert_after(RegistryBegin, ReportRegistry(program, NSE))
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


async def serve_registered(program: Program, served: RegisteredRole) -> None:
    """Serve what is registered in the background until the program is told to leave."""
    reported(served.role, program)
    if served.registrant is not None and served.registrant.nse is not None:
        served.registrant.nse = served.registrant.nse.insert_after(Heal, ReportOwn(program, NSE))
    async with served:
        tell(program, served.running)

        async def registrations() -> Sequence[Mapping[str, Any]]:
            return [] if served.registration is None else [entry_facts(served.registration)]

        program.registrations = registrations
        program.ready(served.running.urls)
        await program.stopped()
