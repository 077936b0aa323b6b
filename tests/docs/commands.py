# SPDX-License-Identifier: Apache-2.0
"""Command lines as somebody types them, run as processes.

Does:  `Terminal` starts a command and waits for lines of its output, never for the clock (a wait in vain ends after
       `PATIENCE` and tells what was printed); whatever still runs at its exit is ended.
Place: tests of documents and examples.
State: the processes of one test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")


class Command:
    """One running command."""

    def __init__(self, words: Sequence[str], process: asyncio.subprocess.Process, log: Path) -> None:
        self.words = tuple(words)
        self.lines: list[str] = []
        """What was printed and read so far."""
        self._process = process
        self._log = log
        assert process.stdout is not None
        self._stdout = process.stdout

    async def says(self, text: str) -> str:
        """The next line that contains `text`."""
        try:
            async with asyncio.timeout(PATIENCE):
                while raw := await self._stdout.readline():
                    self.lines.append(raw.decode().rstrip("\n"))
                    if text in self.lines[-1]:
                        return self.lines[-1]
        except TimeoutError:
            raise AssertionError(f"does not say {text!r}:\n{self}") from None
        raise AssertionError(f"ended without saying {text!r}:\n{self}")

    async def ended(self) -> int:
        """Its exit status; `lines` is all it printed."""
        async with asyncio.timeout(PATIENCE):
            while raw := await self._stdout.readline():
                self.lines.append(raw.decode().rstrip("\n"))
            return await self._process.wait()

    @property
    def stderr(self) -> str:
        """What it wrote there."""
        return self._log.read_text(errors="replace")

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and answer the exit status."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
        status = await self.ended()
        # The transport lets go of its pipes one turn later.
        getattr(self._process, "_transport").close()  # noqa: B009
        await asyncio.sleep(0)
        return status

    def __str__(self) -> str:
        return "\n".join((f"$ {' '.join(self.words)}", *self.lines, self.stderr[-2000:]))


class Terminal:
    """Runs commands in the checkout, with `python` and `nsm` of this environment; logs go to `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[Command] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Clients first: an endpoint that is gone would only keep them waiting.
        for command in reversed(self.commands):
            await command.stop(signal.SIGTERM if error is None else signal.SIGKILL)
            if error is not None:
                error.add_note(str(command))

    async def run(self, *words: str) -> Command:
        """Start a command; it goes on by itself."""
        log = self.folder / f"{len(self.commands)}.log"
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(whole for word in words for whole in _resolved(word)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env={**environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
                limit=1 << 20,
            )
        command = Command(words, process, log)
        self.commands.append(command)
        return command


def _resolved(word: str) -> Sequence[str]:
    if word == "python":
        return (sys.executable,)
    return (sys.executable, "-m", "nsm_sdk.cli.main") if word == "nsm" else (word,)
