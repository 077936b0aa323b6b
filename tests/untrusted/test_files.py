# SPDX-License-Identifier: Apache-2.0
"""Files: nobody else may read ours, and what others put into our way is not taken for ours.

Does:  looks at modes of sockets, folders and records; puts links, pipes, strangers' and spoiled files where ours should
       be; lets the disk be full and folders be read-only. Everything ends in a clear error or a warning, and works
       again once the cause has gone.
Place: the ledger of the forwarder, listening sockets, the admin socket.
State: a folder per test.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsm_sdk.cli.admin import admin_socket
from nsm_sdk.cli.journal import Journal
from nsm_sdk.core import Role
from nsm_sdk.errors import AlreadyExists, FailedPrecondition
from nsm_sdk.mechanisms import CLIENT_SIDE, ENDPOINT_SIDE, Ledger, Record, RecordedEnd
from nsm_sdk.mechanisms.tags import file_name
from nsm_sdk.transport import listen


def mode(path: Path) -> int:
    """Permission bits of the thing itself."""
    return stat.S_IMODE(path.lstat().st_mode)


def record(connection: str = "c") -> Record:
    ends = [
        RecordedEnd(role=role, url="file:///run/netns/x", dev=1, ino=2, name="n", mac="m", alias="a")
        for role in (CLIENT_SIDE, ENDPOINT_SIDE)
    ]
    return Record(connection=connection, forwarder="fwd", ends=tuple(ends))


@pytest.fixture(params=[0o022, 0o000, 0o777])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Whatever the process's mask is."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o000], indirect=True)
def test_records_and_their_folder_are_for_their_owner_only(mask: int, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    ledger = Ledger(folder)
    ledger.put(record())
    assert mode(folder) == 0o700
    assert [mode(path) for path in folder.iterdir()] == [0o600]


async def test_sockets_are_for_their_owner_only(mask: int, tmp_path: Path) -> None:
    path = tmp_path / "nsm.sock"
    async with Role("hop").serving(listen=[listen(f"unix://{path}")]):
        assert mode(path) == 0o600
        assert os.umask(mask) == mask
        assert os.listdir(tmp_path) == [path.name]
    assert not path.exists()


class _Tells:
    journal = Journal()

    def connections(self) -> Sequence[Any]:
        return ()

    async def registrations(self) -> Sequence[Any]:
        return ()


async def test_the_admin_socket_is_for_its_owner_only(mask: int, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with admin_socket(str(path), _Tells()):
        assert mode(path) == 0o600
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to nothing", "link to a socket", "pipe"])
async def test_a_socket_takes_nobodys_place(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / "nsm.sock", tmp_path / "other"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link to a socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(other))
            path.symlink_to(other)
        case _:
            if kind == "link to a file":
                other.write_text("precious")
            path.symlink_to(other)
    before = path.lstat()
    with pytest.raises(AlreadyExists, match="something else at this path") as caught:
        async with Role("hop").serving(listen=[listen(f"unix://{path}")]):
            raise AssertionError
    assert caught.value.hint
    assert path.lstat().st_ino == before.st_ino
    if kind == "link to a file":
        assert other.read_text() == "precious"


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "empty", "large", "deep", "infinite", "list"])
def test_what_is_no_record_of_ours_is_left_alone(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Ledger(tmp_path).put(record("mine"))
    path, other = tmp_path / "planted.json", tmp_path / "elsewhere"
    good = (tmp_path / file_name("mine")).read_text().replace("mine", "planted")
    match what:
        case "link":
            other.write_text(good)
            path.symlink_to(other)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "large":
            path.write_text(good + " " * (1 << 18))
        case "deep":
            path.write_text("[" * 100_000)
        case "infinite":
            path.write_text(good.replace('"dev": 1', '"dev": 1e999'))
        case "list":
            path.write_text(json.dumps([1]))
        case _:
            path.touch()
    with caplog.at_level(logging.WARNING):
        assert [one.connection for one in Ledger(tmp_path).all()] == ["mine"]
    assert "planted.json is not a record and is left alone" in caplog.text
    assert path.is_symlink() or path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_record_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record("mine"))
    ledger.put(record("planted"))
    os.chown(tmp_path / file_name("planted"), 12345, 12345)
    assert [one.connection for one in Ledger(tmp_path).all()] == ["mine"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(field=st.sampled_from(["version", "connection", "forwarder", "ends"]), value=_json, inside=st.booleans())
def test_a_spoiled_record_never_keeps_a_forwarder_from_starting(
    field: str, value: Any, inside: bool, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record("spoiled"))
    ledger.put(record("mine"))
    path = tmp_path / file_name("spoiled")
    raw = json.loads(path.read_text())
    if inside and raw["ends"]:
        raw["ends"][0][sorted(raw["ends"][0])[len(field) % len(raw["ends"][0])]] = value
    else:
        raw[field] = value
    path.write_text(json.dumps(raw))
    assert "mine" in [one.connection for one in Ledger(tmp_path).all()]


def test_a_link_in_the_way_of_a_record_is_replaced_and_not_followed(tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "precious"
    other.write_text("precious")
    ledger = Ledger(state)
    (state / file_name("c")).symlink_to(other)
    (state / f"{file_name('c')}.tmp").symlink_to(other)
    ledger.put(record("c"))
    assert other.read_text() == "precious"
    assert [one.connection for one in Ledger(state).all()] == ["c"]


def test_a_folder_open_to_others_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        Ledger(tmp_path)
    assert "can be written by others" in caplog.text


# --- the operating system refuses ------------------------------------------------------------------------------------


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> Iterator[None]:
    """Files take `room` bytes at a time, then none, as a full file system does."""
    real, left = os.write, [room]

    def write(handle: int, data: bytes) -> int:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return real(handle, data)
        if not left[0]:
            raise OSError(28, os.strerror(28))
        taken = data[: left[0]]
        left[0] -= len(taken)
        return real(handle, taken)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_is_told_and_nothing_half_written_stays(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record("before"))
    with full_disk(monkeypatch, room), pytest.raises(FailedPrecondition, match="No space left") as caught:
        ledger.put(record("c"))
    assert "NSM_STATE_DIR" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == [file_name("before")]
    assert ledger.get("c") is None
    ledger.put(record("c"))
    assert {one.connection for one in Ledger(tmp_path).all()} == {"before", "c"}


def test_a_record_that_is_written_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
    Ledger(tmp_path).put(record("c"))
    assert Ledger(tmp_path).get("c") == record("c")


def test_a_folder_that_vanishes_is_told_and_the_record_kept(tmp_path: Path) -> None:
    state, away = tmp_path / "state", tmp_path / "away"
    ledger = Ledger(state)
    ledger.put(record("c"))
    state.rename(away)
    state.write_text("not a folder")
    with pytest.raises(FailedPrecondition, match="cannot be written: Not a directory") as caught:
        ledger.put(record("d"))
    assert caught.value.hint
    with pytest.raises(FailedPrecondition, match="cannot be removed: Not a directory") as caught:
        ledger.forget("c")
    assert caught.value.hint
    assert ledger.get("c") == record("c")
    state.unlink()
    away.rename(state)
    ledger.put(record("d"))
    ledger.forget("c")
    assert [one.connection for one in Ledger(state).all()] == ["d"]
