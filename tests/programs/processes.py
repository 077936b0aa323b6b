# SPDX-License-Identifier: Apache-2.0
"""Programs as a stranger starts them: from a command line, with an environment, read by what they print.

Does:  `Mesh` starts `nsm run ROLE` as processes in a folder of their own, and ends what is left at its exit;
       `Process` waits for event lines, never for the clock (the test's own time-out ends a wait in vain).
Place: tests of programs.
State: the processes of one test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nsm_sdk.testing import connected_sockets
from tests.run import unique

NSM = (sys.executable, "-m", "nsm_sdk.cli.main")
Line = dict[str, Any]
_EACH = 2
"""Connections that one program opens to another at most: its role's, and those of its registrations."""
_TRIES = 40
PATIENCE = 60.0
"""Seconds after which a wait is given up, so that the failure can tell what was printed."""


def environment(**more: str) -> dict[str, str]:
    """What a program needs of ours, and nothing that this run of the tests may have set."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    root = str(Path(__file__).parents[2])
    return {**kept, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", **more}


class Process:
    """One running program."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.role = role
        self.pid = process.pid
        self.lines: list[Line] = []
        """Everything on stdout so far."""
        self._process = process
        self._at = 0
        self._own = 8
        self._frozen = False
        self._log = folder
        assert process.stdout is not None
        self._stdout = process.stdout

    async def _read(self) -> Line | None:
        raw = await self._stdout.readline()
        if not raw:
            return None
        line: Line = json.loads(raw)
        self.lines.append(line)
        return line

    async def event(self, kind: str, **fields: Any) -> Line:
        """The next line of that kind and with those fields; earlier lines are left behind."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._event(kind, fields)
        except TimeoutError:
            raise AssertionError(f"{self.role} prints no {kind} {fields}") from None

    async def _event(self, kind: str, fields: dict[str, Any]) -> Line:
        while True:
            while self._at < len(self.lines):
                line = self.lines[self._at]
                self._at += 1
                if line["event"] == kind and all(line.get(name) == value for name, value in fields.items()):
                    return line
            if await self._read() is None:
                raise AssertionError(f"{self.role} ended without {kind} {fields}")

    async def ready(self) -> Line:
        """The ready line; it must be the first."""
        line = await self.event("ready")
        assert self.lines[0] is line
        # Before anybody else can know of it; the event loop and the signals have pairs of their own.
        self._own = len(connected_sockets(self.pid))
        return line

    @property
    def stderr(self) -> str:
        """The log so far."""
        return self._log.read_text()

    def send(self, number: int) -> None:
        """Send a signal to this process alone."""
        self._frozen = number == signal.SIGSTOP or (self._frozen and number != signal.SIGCONT)
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, after reading what it still has to say."""
        while await self._read() is not None:
            pass
        return await self._process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and answer the exit status."""
        self.send(number)
        return await self.ended()

    async def kill(self) -> None:
        """End it as a crash would."""
        await self.stop(signal.SIGKILL)

    def events(self, kind: str) -> list[Line]:
        """The lines of that kind that have been read."""
        return [line for line in self.lines if line["event"] == kind]

    @property
    def running(self) -> bool:
        """Whether it has not been seen to end."""
        return self._process.returncode is None

    async def strangers(self, among: Sequence[Process]) -> str:
        """Connections of this process whose far end is neither known here nor the test itself; empty if all is well."""
        if not self.running or self._frozen:
            return ""
        for _ in range(_TRIES):
            most = self._own + 2 * _EACH * sum(one.running for one in among if one is not self)
            most += len(connected_sockets())
            found = connected_sockets(self.pid)
            if len(found) <= most:
                return ""
            await asyncio.sleep(0.05)
        return f"{len(found)} connections, {most} at most"

    async def put_down(self) -> None:
        """End it for certain."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
                self._process.kill()
            await self.ended()
        # The transport lets go of its pipes one turn later.
        getattr(self._process, "_transport").close()  # noqa: B009
        await asyncio.sleep(0)


class Mesh:
    """Programs that belong together: one folder, one manager's address."""

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=unique("nsm")))
        self.settings = {"NSM_DATAPATH": "simulated", **settings}
        self.processes: list[Process] = []
        self._count = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = []
        for process in reversed(self.processes):
            if error is None and (found := await process.strangers(self.processes)):
                left.append(f"{process.role} {process.pid} holds {found}")
            await process.put_down()
        if error is not None:
            for process in self.processes:
                error.add_note(f"-- {process.role} {process.pid}: {process.lines[-5:]}\n{process.stderr[-1500:]}")
        shutil.rmtree(self.folder)
        if left:
            raise AssertionError(f"connections left behind: {'; '.join(left)}")

    def socket(self, name: str) -> str:
        """The URL of a socket in the folder."""
        return f"unix://{self.folder}/{name}"

    @property
    def manager(self) -> str:
        """Where the manager listens, and is looked for."""
        return self.settings.get("NSM_CONNECT_TO", self.socket("nsmgr"))

    def _defaults(self, role: str) -> dict[str, str]:
        match role:
            case "registry":
                return {"NSM_LISTEN_ON": self.socket("registry")}
            case "nsmgr":
                return {
                    "NSM_LISTEN_ON": self.manager,
                    "NSM_REGISTRY_URL": self.socket("registry"),
                    "NSM_STATE_DIR": f"{self.folder}/state-nsmgr",
                }
            case "forwarder":
                return {
                    "NSM_LISTEN_ON": self.socket("forwarder"),
                    "NSM_CONNECT_TO": self.manager,
                    "NSM_STATE_DIR": f"{self.folder}/state",
                }
            case "nse":
                return {
                    "NSM_CONNECT_TO": self.manager,
                    "NSM_LISTEN_ON": self.socket("nse"),
                    "NSM_STATE_DIR": f"{self.folder}/state-nse",
                }
            case _:
                return {
                    "NSM_CONNECT_TO": self.manager,
                    "NSM_NETWORK_SERVICES": "kernel://icmp-responder/nsm-1",
                }

    async def start(
        self,
        role: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        **settings: str,
    ) -> Process:
        """Start `nsm run ROLE`; `settings` without their prefix, in lower case, go by `--set`."""
        chosen = {f"NSM_{name.upper()}": value for name, value in settings.items()}
        mine = {**self.settings, **self._defaults(role), **chosen}
        if role in ("registry", "nsmgr"):
            mine.pop("NSM_DATAPATH", None)
        flags = [word for name, value in mine.items() for word in ("--set", f"{name}={value}")]
        return await self.run(role, *flags, *arguments, env=env)

    async def run(self, role: str, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start `nsm run ROLE` with just these arguments."""
        self._count += 1
        log = self.folder / f"{self._count}-{role}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *NSM,
                "run",
                role,
                *arguments,
                env=environment(**(env or {})),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=self.folder,
                limit=1 << 20,
            )
        started = Process(role, process, log)
        self.processes.append(started)
        return started

    async def all(self, *roles: str) -> list[Process]:
        """Start several, one right after the other."""
        return [await self.start(role) for role in roles]

    @contextlib.asynccontextmanager
    async def connected(self, **settings: str) -> AsyncIterator[tuple[Process, ...]]:
        """registry, nsmgr, forwarder, nse, nsc, with a connection that stands."""
        registry, nsmgr, forwarder, nse = await self.all("registry", "nsmgr", "forwarder", "nse")
        nsc = await self.start("nsc", env=None, **settings)
        await nsc.event("connected")
        yield registry, nsmgr, forwarder, nse, nsc


async def nsm(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run `nsm` to its end: exit status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *NSM,
        *arguments,
        env=environment(**(env or {})),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        getattr(process, "_transport").close()  # noqa: B009
        await asyncio.sleep(0)
    return process.returncode or 0, out.decode(), err.decode()


def flags(settings: Mapping[str, str]) -> Sequence[str]:
    """`--set` for each setting."""
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
