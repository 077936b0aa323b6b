# SPDX-License-Identifier: Apache-2.0
"""What all programs have in common: lines on stdout, logs on stderr, signals, the way out.

Does:  `run` sets a process up, runs one role in it, and answers its exit status. The first signal stops the role
       gracefully, within the time that the settings give; a second one leaves at once.
Place: between `nsm run` and the roles.
State: the process: descriptors, signal handlers, the two writers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from nsm_sdk.cli.codecs import LEVELS
from nsm_sdk.cli.journal import Journal
from nsm_sdk.cli.lines import Lines
from nsm_sdk.cli.main import SIGNALS
from nsm_sdk.cli.roles.common import Common
from nsm_sdk.errors import NsmError

logger = logging.getLogger("nsm_sdk.cli")

FLUSH = 0.5
"""Seconds that a reader of our last lines gets."""
RESERVE = 0.1
"""Share of the shutdown time, and at most a second, that is kept for leaving after closing has been cut short."""


class Program:
    """One role in a process of its own."""

    def __init__(self, role: str, settings: Common, machine: Mapping[str, str], events: Lines) -> None:
        self.role = role
        self.settings = settings
        self.machine = machine
        """NODE_NAME and the like, where they are set."""
        self.journal = Journal()
        self._events = events
        self._stop = asyncio.Event()
        self._until = 0.0
        self.connections: Callable[[], Sequence[Mapping[str, Any]]] = lambda: ()
        """What the admin socket tells of connections, set by the role."""
        self.registrations: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]] = _nothing

    def emit(self, event: str, **fields: Any) -> None:
        """Print one event and note it in the journal; fields without a value are left out."""
        line = {"event": event, **{name: value for name, value in fields.items() if value is not None}}
        self._events.put(json.dumps(line, ensure_ascii=False))
        self.journal.note(line)

    def ready(self, listen: Sequence[str]) -> None:
        """Print the ready line."""
        # Modules and chains stay to the end. Looking through them again in every full collection took 11 ms of
        # processor time, in which nothing is served. (Not collected first: that is as long, for 400 objects.)
        gc.freeze()
        line = {
            "event": "ready",
            "role": self.role,
            "name": self.settings.name,
            "listen": list(listen),
            "pid": os.getpid(),
        }
        self._events.put(json.dumps(line, ensure_ascii=False))
        logger.info("%s %s is ready%s", self.role, self.settings.name, f" on {', '.join(listen)}" if listen else "")

    def error(self, error: NsmError, *, id: str = "", **fields: Any) -> None:
        """Print an `error` event."""
        self.emit(
            "error",
            id=id,
            **fields,
            hop=error.hop,
            element=error.element,
            code=error.status.name,
            message=error.message,
            hint=error.hint,
        )

    @property
    def stopping(self) -> bool:
        """Whether the program has been told to leave."""
        return self._stop.is_set()

    async def stopped(self) -> None:
        """Wait until the program is told to leave."""
        await self._stop.wait()

    def stop(self) -> None:
        """Leave gracefully; from the loop's own thread."""
        if not self._stop.is_set():
            self._until = time.monotonic() + self.settings.shutdown_timeout
            self._stop.set()

    @property
    def drain_time(self) -> float:
        """Seconds for calls of peers that run when the program leaves; then the streams end and the sockets close."""
        return self.settings.shutdown_timeout - 2 * _reserve(self.settings.shutdown_timeout)

    def closing_time(self) -> float:
        """Seconds in which what is open has to be closed."""
        left = self._until - time.monotonic() if self.stopping else self.settings.shutdown_timeout
        return max(left - _reserve(self.settings.shutdown_timeout), 0.05)


async def _nothing() -> Sequence[Mapping[str, Any]]:
    return ()


def _reserve(timeout: float) -> float:
    return min(2 * RESERVE * timeout, 2.0)


Serve = Callable[[Program], Awaitable[None]]


def keep_standard_descriptors() -> None:
    """Open what is closed of 0, 1 and 2, so that a socket of ours is never taken for stdout."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def run(role: str, settings: Common, machine: Mapping[str, str], serve: Serve, warnings: Sequence[str]) -> int:
    """Run `serve` until it ends or a signal comes; answers the exit status."""
    keep_standard_descriptors()
    events = Lines(1, lambda count: json.dumps({"event": "dropped", "count": count}))
    logs = Lines(2, lambda count: f"{count} log lines were dropped: nobody reads them fast enough")
    set_up_logging(settings, logs)
    for warning in warnings:
        logger.warning("%s", warning)
    status = 1
    try:
        with asyncio.Runner() as runner:
            status = runner.run(_main(role, settings, machine, serve, events, logs))
    except NsmError as error:
        logs.put(f"nsm run {role}: {error}")
    except Exception:
        logger.exception("%s ended with an unexpected error", role)
    events.flush(FLUSH)
    logs.flush(FLUSH)
    return status


async def _main(
    role: str, settings: Common, machine: Mapping[str, str], serve: Serve, events: Lines, logs: Lines
) -> int:
    from nsm_sdk.cli.admin import admin_socket

    loop = asyncio.get_running_loop()
    program = Program(role, settings, machine, events)
    _handle_signals(loop, program, events, logs)
    async with admin_socket(settings.admin_socket, program):
        work = asyncio.ensure_future(serve(program))
        stopped = asyncio.ensure_future(program.stopped())
        try:
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                # Serving ends by itself once told; what a dead peer holds up is left to expire.
                await asyncio.wait((work,), timeout=program.closing_time() + _reserve(settings.shutdown_timeout) / 2)
            if not work.done():
                logger.warning("not everything could be closed within %g s", settings.shutdown_timeout)
                work.cancel()
                await asyncio.wait((work,), timeout=_reserve(settings.shutdown_timeout) / 4)
        finally:
            stopped.cancel()
        if work.done() and not work.cancelled() and (error := work.exception()) is not None:
            raise error
    return 0


def _handle_signals(loop: asyncio.AbstractEventLoop, program: Program, events: Lines, logs: Lines) -> None:
    """The first signal stops the program, the second ends the process, even while the loop is busy."""
    seen = 0

    def told(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os._exit(128 + number)
        timeout = program.settings.shutdown_timeout
        watchdog = threading.Timer(timeout * (1 - RESERVE / 2), _leave, (events, logs))
        watchdog.daemon = True
        watchdog.start()
        loop.call_soon_threadsafe(program.stop)

    for number in SIGNALS:
        # The loop's own handler does nothing but wake it: a signal that arrives just before it sleeps would be lost.
        loop.add_signal_handler(number, _nothing_to_do)
        signal.signal(number, told)


def _nothing_to_do() -> None:
    """`told` has done it."""


def _leave(events: Lines, logs: Lines) -> NoReturn:
    """The graceful way has taken too long; what is left expires."""
    events.flush(0.05)
    logs.flush(0.05)
    os._exit(0)


def set_up_logging(settings: Common, logs: Lines) -> None:
    """Logs of the library and of this program go to `logs`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                logs.put(self.format(record))
            except Exception:
                self.handleError(record)

    handler = Handler()
    handler.setFormatter(_Json() if settings.log_format == "json" else _Text())
    level = LEVELS[settings.log_level]
    root = logging.getLogger()
    root.addHandler(handler)
    # Other packages are heard from when they have something to complain of.
    root.setLevel(max(level, logging.WARNING) if level >= logging.DEBUG else level)
    logging.getLogger("nsm_sdk").setLevel(level)
    logging.raiseExceptions = False


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def leave(status: int) -> NoReturn:
    """End the process. Nothing is left to run: threads that wait for a reader must not hold it up."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(status)
