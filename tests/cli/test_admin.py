# SPDX-License-Identifier: Apache-2.0
"""What the admin socket answers."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsm_sdk.cli.admin import admin_socket, answer
from nsm_sdk.cli.journal import CONNECTIONS, EVENTS, Journal
from nsm_sdk.errors import AlreadyExists, Unavailable


class Told:
    """A program with one of everything."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.journal.note({"event": "connected", "id": "nsc-0"})

    def connections(self) -> Sequence[Mapping[str, Any]]:
        return [{"id": "nsc-0"}, {"id": "nsc-1"}]

    async def registrations(self) -> Sequence[Mapping[str, Any]]:
        return [{"id": "nse"}]


async def ask(path: Path, command: bytes) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(command)
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return [json.loads(line) for line in raw.splitlines()]


async def test_it_answers_lines_of_json_to_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    async with admin_socket(str(path), Told()):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert await ask(path, b"connections\n") == [{"id": "nsc-0"}, {"id": "nsc-1"}]
        assert await ask(path, b"registrations\n") == [{"id": "nse"}]
        (entry,) = await ask(path, b"journal nsc-0\n")
        assert (entry["event"], entry["id"]) == ("connected", "nsc-0")
        (error,) = await ask(path, b"journal nobody\n")
        assert "nobody" in error["error"]
        (error,) = await ask(path, b"reboot now\n")
        assert error["commands"] == ["connections", "registrations", "journal ID"]
        assert await ask(path, b"x" * 100_000 + b"\n") == []
    assert not path.exists()


async def test_a_caller_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    async with admin_socket(str(path), Told()):
        reader, writer = await asyncio.open_unix_connection(str(path))
        await asyncio.sleep(0)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_socket_that_answers_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    async with admin_socket(str(path), Told()):
        with pytest.raises(AlreadyExists):
            async with admin_socket(str(path), Told()):
                pytest.fail("two at one address")


async def test_no_path_no_socket() -> None:
    async with admin_socket("", Told()):
        assert await answer("connections", Told())


async def test_an_error_of_the_program_is_answered() -> None:
    class Broken(Told):
        async def registrations(self) -> Sequence[Mapping[str, Any]]:
            raise Unavailable("the registry is away")

    (line,) = await answer("registrations", Broken())
    assert "the registry is away" in line["error"]


def test_the_journal_is_bounded() -> None:
    journal = Journal()
    for number in range(CONNECTIONS + 10):
        journal.note({"event": "connected", "id": f"c-{number}"})
    assert journal.of("c-0") is None
    assert len(journal.ids()) == CONNECTIONS
    for _ in range(EVENTS + 10):
        journal.note({"event": "refreshed", "id": "c-500"})
    events = journal.of("c-500")
    assert events is not None
    assert len(events) == EVENTS
    journal.note({"event": "dropped"})
    assert len(journal.ids()) == CONNECTIONS
