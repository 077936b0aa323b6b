# SPDX-License-Identifier: Apache-2.0
"""A hop that is a process of its own: `nsm run ROLE`.

Does:  starts the program with its settings in the environment, reads its ready line and its events, keeps its log, and
       ends it with the signals that a machine would use.
Place: the lab's modes with programs.
State: the process, its events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from nsm_sdk.errors import DeadlineExceeded, FailedPrecondition
from nsm_sdk.lab.hop import READY_TIME, Hop

STOP_TIME = 12.0
"""Seconds between SIGTERM and SIGKILL."""
_TAIL = 2000


class ProgramHop(Hop):
    """A program. `settings`: names without `NSM_`, in any case; `folder`: where its log goes."""

    def __init__(self, role: str, name: str, url: str, settings: Mapping[str, str], folder: Path) -> None:
        super().__init__(role, name, url)
        self.settings = {key.upper(): value for key, value in settings.items()}
        self.events: list[dict[str, Any]] = []
        """Every event line since the first start, oldest first."""
        self.told: list[Callable[[dict[str, Any]], None]] = []
        """Called for every event line when it comes; must not raise."""
        self.log = folder / f"{name.replace('/', '_')}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = anyio.Event()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process id. FailedPrecondition while it does not run."""
        if self._process is None or self._process.returncode is not None:
            raise FailedPrecondition(f"{self.role} {self.name} does not run", hint="start it, or restart it")
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """What the program's environment is: ours without our own settings, and its settings."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NSM_")}
        environment["NSM_NAME"] = self.name
        if self.url:
            environment["NSM_LISTEN_ON"] = self.url
        environment.update({f"NSM_{key}": value for key, value in self.settings.items()})
        return environment

    async def start(self) -> None:
        if self.alive:
            return
        await self._leave()
        before = len(self.events)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "nsm_sdk.cli.main",
                "run",
                self.role,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self.environment(),
                limit=1 << 20,
            )
        self._reader = asyncio.create_task(self._read(self._process), name=f"events of {self.name}")
        try:
            ready = await self.event("ready", since=before, timeout=READY_TIME)
        except BaseException:
            await self.kill()
            raise
        if self.url:
            self.url = ready["listen"][0]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "garbage", "line": line.decode(errors="replace")}
            self._tell(event)
        self._tell({"event": "ended", "status": await process.wait()})

    def _tell(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        for told in self.told:
            told(event)
        news, self._news = self._news, anyio.Event()
        news.set()

    async def event(
        self, kind: str, *, since: int | None = None, timeout: float = READY_TIME, **fields: Any
    ) -> dict[str, Any]:
        """The first event of that kind with these fields, from the position `since` on (default: from now on)."""
        at = len(self.events) if since is None else since
        with anyio.move_on_after(timeout):
            while True:
                for event in self.events[at:]:
                    at += 1
                    if event["event"] == kind and all(event.get(key) == value for key, value in fields.items()):
                        return event
                    if event["event"] == "ended" and kind != "ended":
                        raise FailedPrecondition(
                            f"{self.role} {self.name} ended with status {event['status']}: {self.tail()}",
                            hint="see what it says on stderr",
                        )
                await self._news.wait()
        raise DeadlineExceeded(
            f"{self.role} {self.name} did not say {kind!r} within {timeout:g} s: {self.tail()}",
            hint="see what it says on stderr",
        )

    def tail(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-_TAIL:].strip()
        return ""

    async def stop(self) -> None:
        if self.alive:
            self._signal(signal.SIGTERM)
            with anyio.CancelScope(shield=True):
                await self._wait(STOP_TIME)
        await self.kill()

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await self._leave()

    def _signal(self, number: signal.Signals) -> None:
        if self.alive and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _wait(self, seconds: float) -> None:
        assert self._process is not None
        with anyio.move_on_after(seconds):
            await self._process.wait()

    async def _leave(self) -> None:
        """Reap the process, and read what it said last."""
        process, reader = self._process, self._reader
        self._process = self._reader = None
        with anyio.CancelScope(shield=True):
            if process is not None:
                await process.wait()
            if reader is not None:
                await reader
