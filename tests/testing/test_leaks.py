# SPDX-License-Identifier: Apache-2.0
"""The leak check finds what is left, names it, costs little, and leaves the rest alone."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nsm_sdk.testing import LASTING_THREADS, Holdings, settled
from nsm_sdk.testing.leaks import lines


def test_nothing_new_is_nothing() -> None:
    before = Holdings.now()
    assert Holdings.now().new_since(before, ours=("",)) == []


def test_an_open_descriptor_is_named(tmp_path: Path) -> None:
    before = Holdings.now()
    with (tmp_path / "left-open").open("w"), socket.socket() as sock:
        found = Holdings.now().new_since(before)
        assert len(found) == 2
        assert any("left-open" in line for line in found)
        assert any(f"descriptor {sock.fileno()}: socket:" in line for line in found)
    assert Holdings.now().new_since(before) == []


def test_a_descriptor_that_became_another_is_found() -> None:
    first = os.open("/dev/null", os.O_RDONLY)
    before = Holdings.now()
    os.close(first)
    second = os.open("/dev/zero", os.O_RDONLY)
    try:
        assert second == first
        assert Holdings.now().new_since(before) == [f"descriptor {second}: /dev/zero"]
    finally:
        os.close(second)


def test_a_thread_is_named_and_gets_time_to_end() -> None:
    before, go = Holdings.now(), threading.Event()
    thread = threading.Thread(target=go.wait, name="left one", daemon=True)
    thread.start()
    assert Holdings.now().new_since(before, patience=0.01) == ["thread 'left one'"]
    held = Holdings.now()
    go.set()
    assert held.new_since(before, patience=10.0) == []


@pytest.mark.parametrize("name", LASTING_THREADS)
def test_lasting_threads_are_allowed_by_name(name: str) -> None:
    before, go = Holdings.now(), threading.Event()
    thread = threading.Thread(target=go.wait, name=f"Thread-1 ({name})")
    thread.start()
    assert Holdings.now().new_since(before, patience=0.01) == []
    go.set()
    thread.join()


def test_interfaces_and_namespaces_count_when_they_are_ours() -> None:
    now = Holdings.now()
    assert "lo" in now.interfaces
    before = Holdings(
        descriptors=now.descriptors, threads=now.threads, interfaces=now.interfaces, namespaces=now.namespaces
    )
    later = Holdings(
        descriptors=now.descriptors,
        threads=now.threads,
        interfaces=now.interfaces | {"t12ab1", "eth7"},
        namespaces=now.namespaces | {"ns12ab2", "foreign"},
    )
    assert later.new_since(before) == []
    assert later.new_since(before, ours=("12ab",)) == ["interface t12ab1", "namespace ns12ab2"]
    assert len(later.new_since(before, ours=("",))) == 4


def test_a_look_costs_far_less_than_a_test() -> None:
    began = time.process_time()
    for _ in range(20):
        Holdings.now().new_since(Holdings.now())
    assert (time.process_time() - began) / 20 < 0.02


async def test_tasks_are_described_by_name_and_place() -> None:
    async def waits(event: asyncio.Event) -> None:
        await event.wait()

    event = asyncio.Event()
    task = asyncio.create_task(waits(event), name="the waiter")
    await settled()
    (line,) = lines([task])
    assert line.startswith("'the waiter' at ")
    assert "locks.py" in line
    assert "waits (" in line
    assert "test_leaks.py" in line
    event.set()
    await task


CASES = """
import asyncio, os, threading
import pytest

async def test_leaves_a_task():
    globals()["kept"] = asyncio.create_task(asyncio.sleep(3600), name="left task")

def test_leaves_a_descriptor():
    globals()["fd"] = os.open("/dev/null", os.O_RDONLY)

def test_leaves_a_thread():
    threading.Thread(target=threading.Event().wait, name="left thread", daemon=True).start()

@pytest.mark.leaks("on purpose")
def test_leaves_on_purpose():
    os.open("/dev/null", os.O_RDONLY)

async def test_leaves_nothing():
    await asyncio.sleep(0)
"""


def test_the_check_round_every_test(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import *\nfrom tests.conftest import _no_task_left, _nothing_left\n"
    )
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = auto\npythonpath = {root}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    text = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    assert "5 passed, 3 errors" in text, text
    assert "tasks left behind: 'left task'" in text
    assert "/dev/null" in text
    assert "thread 'left thread'" in text
