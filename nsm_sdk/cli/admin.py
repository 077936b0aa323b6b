# SPDX-License-Identifier: Apache-2.0
"""The admin socket: questions about a running program.

Does:  answers one command per call at a unix socket that only its owner may open: `connections`, `registrations`,
       `journal ID`; each item of the answer is a line of JSON. A command that nobody knows is answered with `error`.
Place: every program with `NSM_ADMIN_SOCKET`; `nsm explain` asks here.
State: none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from nsm_sdk.cli.journal import Journal
from nsm_sdk.errors import NsmError

logger = logging.getLogger("nsm_sdk.cli")

LONGEST = 4096
"""Bytes of a command."""
PATIENCE = 10.0
"""Seconds that a caller gets for its command, and for reading the answer."""
MODE = 0o600


class Told(Protocol):
    """What the socket tells of."""

    journal: Journal

    def connections(self) -> Sequence[Mapping[str, Any]]:
        """The connections of this hop."""

    def registrations(self) -> Awaitable[Sequence[Mapping[str, Any]]]:
        """What is registered here, or by this program."""


@asynccontextmanager
async def admin_socket(path: str, told: Told) -> AsyncGenerator[None, None]:
    """Serve at `path`; an empty one serves nothing. AlreadyExists where somebody answers."""
    if not path:
        yield
        return
    from nsm_sdk.transport.sockets import check_unix, unix_place

    check_unix(path, f"unix://{path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(listener):

        def bind(name: str) -> None:
            listener.bind(name)
            listener.listen(16)

        with unix_place(path, f"unix://{path}", MODE, bind):
            calls: set[asyncio.Task[None]] = set()
            ended = False

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                if ended or task is None:
                    # Accepted in the turn in which the program left.
                    writer.close()
                    return
                calls.add(task)
                try:
                    async with asyncio.timeout(PATIENCE):
                        await _serve(reader, writer, told)
                except (OSError, TimeoutError, ValueError) as error:
                    logger.debug("admin socket: a caller went away: %s", error)
                except asyncio.CancelledError:
                    logger.debug("admin socket: a caller was cut off")
                finally:
                    calls.discard(task)
                    writer.close()

            server = await asyncio.start_unix_server(serve, sock=listener, limit=LONGEST)
            try:
                yield
            finally:
                ended = True
                server.close()
                for call in list(calls):
                    call.cancel()
                if calls:
                    await asyncio.wait(list(calls), timeout=0.2)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: Told) -> None:
    command = (await reader.readline()).decode("utf-8", "replace")
    for item in await answer(command, told):
        writer.write(json.dumps(item, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        await writer.drain()


async def answer(command: str, told: Told) -> Sequence[Mapping[str, Any]]:
    """The lines that answer `command`."""
    words = command.split()
    try:
        match words:
            case ["connections"]:
                return told.connections()
            case ["registrations"]:
                return await told.registrations()
            case ["journal", id]:
                events = told.journal.of(id)
                if events is None:
                    return [{"error": f"no connection {id!r} is known here", "known": told.journal.ids()[-20:]}]
                return events
    except NsmError as error:
        return [{"error": str(error)}]
    asked = command.strip()[:64]
    return [{"error": f"unknown command {asked!r}", "commands": ["connections", "registrations", "journal ID"]}]
