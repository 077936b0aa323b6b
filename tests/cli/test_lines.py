# SPDX-License-Identifier: Apache-2.0
"""Lines for readers that are slow, or gone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nsm_sdk.cli.lines import Lines

pytestmark = pytest.mark.leaks("the writer's thread lives as long as its process")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue


def dropped(count: int) -> str:
    return f"dropped {count}"


def test_lines_arrive_in_order(pipe: tuple[int, int]) -> None:
    read, write = pipe
    lines = Lines(write, dropped)
    for number in range(100):
        lines.put(f"line {number}")
    assert lines.flush(10)
    assert os.read(read, 65536).decode().splitlines() == [f"line {number}" for number in range(100)]


def test_a_reader_that_does_not_read_is_told_how_much_it_missed(pipe: tuple[int, int]) -> None:
    read, write = pipe
    lines = Lines(write, dropped, capacity=8)
    text = "x" * 8000
    for number in range(200):
        lines.put(f"{number} {text}")
    assert not lines.flush(0)
    got = b""
    while not lines.flush(0.001):
        got += os.read(read, 65536)
    os.close(write)
    while chunk := os.read(read, 65536):
        got += chunk
    found = got.decode().splitlines()
    numbers = [int(line.split()[0]) for line in found if not line.startswith("dropped")]
    missed = [int(line.split()[1]) for line in found if line.startswith("dropped")]
    assert numbers == sorted(numbers)
    assert sum(missed) + len(numbers) == 200
    assert missed


def test_a_reader_that_is_gone_costs_nothing(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.close(read)
    lines = Lines(write, dropped, capacity=8)
    for number in range(1000):
        lines.put(f"line {number}")
    assert lines.flush(10)
    lines.put("one more")
    assert lines.flush(0)


def test_a_pipe_that_does_not_block(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.set_blocking(write, False)
    lines = Lines(write, dropped)
    for _ in range(50):
        lines.put("y" * 5000)
    got = b""
    while not lines.flush(0.001):
        got += os.read(read, 65536)
    got += os.read(read, 1 << 20) if len(got) < 50 * 5001 else b""
    assert got == (b"y" * 5000 + b"\n") * 50


def test_texts_that_are_no_unicode(pipe: tuple[int, int]) -> None:
    read, write = pipe
    lines = Lines(write, dropped)
    lines.put("a \ud800 b")
    assert lines.flush(10)
    assert os.read(read, 100) == b"a \\ud800 b\n"
