# SPDX-License-Identifier: Apache-2.0
"""The secret that a hop keeps for its next start: whole, private, and never a reason not to start."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nsm_sdk.cli.roles.parts import kept_secret
from tests.programs.processes import Mesh


def test_it_is_made_once_private_and_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "a" / "b"
    first = kept_secret(folder)
    assert len(first) == 64
    assert kept_secret(folder) == first
    assert repr(first).strip("'") == "…"
    assert [path.name for path in folder.iterdir()] == ["secret"]
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kept_secret(tmp_path / "other") != first
    assert not caplog.records


def _shared(path: Path) -> None:
    path.write_text("0" * 64)
    path.chmod(0o640)


def _of_another_user(path: Path) -> None:
    path.write_text("0" * 64)
    path.chmod(0o600)
    os.chown(path, 12345, 12345)


def _text(text: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_text(text)
        path.chmod(0o600)

    return spoil


def _link(path: Path) -> None:
    _text("0" * 64)(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "spoil",
    [
        _shared,
        pytest.param(
            _of_another_user, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
        ),
        _text(""),
        _text("0" * 63),
        _text("0" * 70),
        _text("0" * 4096),
        _text("x" * 64),
        Path.mkdir,
        os.mkfifo,
        _link,
    ],
    ids=["shared", "another-user", "empty", "short", "long", "enormous", "no-digits", "folder", "pipe", "link"],
)
def test_one_that_is_not_to_be_trusted_is_left_alone(
    spoil: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secret"
    spoil(path)
    before = path.lstat()
    first = kept_secret(tmp_path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(path) in caplog.text
    assert "NSM_STATE_DIR" in caplog.text
    assert "0" * 16 not in caplog.text
    assert len(first) == 64
    assert kept_secret(tmp_path) != first
    assert path.lstat() == before


def test_where_nothing_can_be_kept_one_warning_is_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "state"
    first = kept_secret(folder)
    assert len(caplog.records) == 1
    assert first not in caplog.text
    assert first != kept_secret(folder)


@pytest.mark.slow
async def test_programs_start_without_a_place_to_keep_it() -> None:
    async with Mesh() as mesh:
        (mesh.folder / "file").write_text("")
        for role in ("nsmgr", "nse"):
            program = await mesh.start(role, state_dir=f"{mesh.folder}/file/state")
            await program.ready()
            assert program.stderr.count("NSM_STATE_DIR") == 1
