# SPDX-License-Identifier: Apache-2.0
"""The protocol alone: two connections that pass each other bytes, without sockets, tasks or time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.connection import (
    CALM,
    CALM_EACH_SECOND,
    RESET_COST,
    SETTINGS_COST,
    STREAMS_AT_COST,
    Connection,
)
from nsm_sdk.transport.http2.frames import Code
from nsm_sdk.transport.http2.headers import ANSWER, GOOD, encode
from nsm_sdk.transport.http2.stream import Event, Stream
from tests.transport.raw import CALL, HELLO, NONSENSE

End = Connection[Stream]


class Both:
    """A client and a server, and what passes between them."""

    def __init__(self, max_message: int = 1 << 20) -> None:
        self.time = 0.0
        self.client: End = Connection(client=True, max_message=max_message, now=self.now)
        self.server: End = Connection(client=False, max_message=max_message, now=self.now)
        self.server.receive(self.client.hello())
        self.client.receive(self.server.hello())
        self.settle()
        assert self.events(self.client) == self.events(self.server) == [Event("introduced")]

    def now(self) -> float:
        return self.time

    def settle(self) -> None:
        """Pass bytes on until there are none."""
        while passed := [self.client.take(), self.server.take()]:
            if not any(passed):
                return
            self.server.receive(passed[0])
            self.client.receive(passed[1])

    @staticmethod
    def events(end: End) -> list[Event]:
        """What has happened since it was last asked."""
        events, end.events = end.events, []
        return events

    def call(self, *messages: bytes, end: bool = True) -> Stream:
        """Send a call."""
        stream: Stream = Stream(self.client, 0)
        self.client.enlist(stream)
        self.client.headers(stream.id, CALL)
        for message in messages[:-1]:
            stream.send(message)
        stream.send(messages[-1], end=end)
        self.settle()
        return stream


def kinds(events: Iterable[Event]) -> list[Any]:
    return [(event.kind, event.stream) for event in events]


def test_a_call_and_its_answer() -> None:
    both = Both()
    both.call(b"question")
    assert both.events(both.server) == [
        Event("begin", 1, dict(CALL)),
        Event("message", 1, b"question"),
        Event("finished", 1),
    ]
    stream = both.server.streams[1]
    both.server.headers(1, ANSWER)
    stream.send(b"answer")
    stream.trailers((("grpc-status", "0"),))
    both.settle()
    assert both.events(both.client) == [
        Event("headers", 1, (dict(ANSWER), False)),
        Event("message", 1, b"answer"),
        Event("headers", 1, ({"grpc-status": "0"}, True)),
    ]
    assert not both.server.streams


def test_a_large_message_waits_for_windows_until_it_is_read() -> None:
    both = Both()
    large = bytes(300_000)
    stream = both.call(large, large, end=False)
    # One that has begun is taken whole; the next one waits until somebody has read the first.
    assert kinds(both.events(both.server)) == [("begin", 1), ("message", 1)]
    assert stream.pending
    both.server.streams[1].read(len(large))
    both.settle()
    assert kinds(both.events(both.server)) == [("message", 1)]
    assert not stream.pending


def test_a_reset_and_a_goodbye() -> None:
    both = Both()
    both.call(b"a", end=False)
    both.client.write(frames.reset(1, Code.CANCEL))
    both.server.write(frames.goaway(1, Code.NO_ERROR, "bye"))
    both.settle()
    assert both.events(both.server)[-1] == Event("gone", 1, ("the stream was reset", Code.CANCEL, True))
    assert both.events(both.client) == [Event("told_to_leave", 0, (1, 0, "GOAWAY: NO_ERROR bye"))]
    assert both.client.leaving


def conversation() -> bytes:
    """What a caller may say, of every kind."""
    parts = [HELLO]
    for stream in (1, 3, 5):
        parts.append(frames.header_frames(stream, encode(CALL, [("x", "y" * 9_000)]), 0, 4_000))
        parts.append(frames.frame(frames.DATA, 0, stream, b"\0\0\0\0\x05abc"))
        parts.append(frames.frame(frames.PING, 0, 0, b"12345678"))
        parts.append(frames.frame(frames.DATA, frames.END_STREAM, stream, b"de"))
    parts.append(frames.reset(3, Code.CANCEL))
    return b"".join(parts)


@given(cuts=st.lists(st.integers(0, len(conversation())), max_size=12))
def test_how_bytes_are_cut_up_does_not_matter(cuts: list[int]) -> None:
    raw = conversation()
    whole: End = Connection(client=False, max_message=1 << 20)
    whole.receive(raw)
    pieces: End = Connection(client=False, max_message=1 << 20)
    for start, end in pairwise([0, *sorted(cuts), len(raw)]):
        if start < end:
            pieces.receive(raw[start:end])
    assert pieces.events == whole.events
    assert pieces.take() == whole.take()


@given(parts=NONSENSE, client=st.booleans())
def test_nonsense_ends_the_connection_or_does_nothing(parts: list[bytes], client: bool) -> None:
    end: End = Connection(client=client, max_message=1 << 20)
    end.receive(frames.settings({}) if client else HELLO)
    for part in parts:
        if not end.closed:
            end.receive(part)
    failed = [event for event in end.events if event.kind == "failed"]
    assert len(failed) == end.closed
    assert all(isinstance(event.what[0], Code) for event in failed)


def test_what_is_no_http2_is_told_apart_at_the_first_byte() -> None:
    end: End = Connection(client=False, max_message=1 << 20)
    end.receive(b"G")
    assert end.events == [Event("foreign")]


@pytest.mark.parametrize(
    ("make", "cost"),
    [
        (lambda number: frames.settings({}), SETTINGS_COST),
        (lambda number: frames.frame(frames.PING, 0, 0, bytes(8)), 2),
        (lambda number: frames.frame(frames.PRIORITY, 0, 1, bytes(5)), 1),
        (lambda number: frames.header_frames(2 * number + 1, b"\x83", 0, frames.FRAME_SIZE), RESET_COST),
    ],
)
def test_the_budget_is_what_it_says_and_comes_back(make: Any, cost: int) -> None:
    both = Both()
    start = (CALM - SETTINGS_COST - 2) // cost  # what the introduction has cost, and a receipt
    number = 0
    for _ in range(2):
        for _ in range(start):
            both.server.receive(make(number))
            number += 1
        assert not both.server.closed
        both.time += CALM / CALM_EACH_SECOND
    both.time = both.time - CALM / CALM_EACH_SECOND
    while not both.server.closed:
        both.server.receive(make(number))
        number += 1
    assert number < 2 * start + 20
    assert both.events(both.server)[-1].what[0] is Code.ENHANCE_YOUR_CALM


def test_settings_that_change_every_window_cost_by_the_number_of_streams() -> None:
    both = Both()
    for _ in range(64 * STREAMS_AT_COST):
        both.call(b"a", end=False)
    both.settle()
    number = 0
    while not both.server.closed:
        number += 1
        both.server.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: number}))
    # Each message that has come has given one back.
    assert number <= (CALM + 64 * STREAMS_AT_COST) // (SETTINGS_COST + 64) + 1
    assert both.events(both.server)[-1].what[0] is Code.ENHANCE_YOUR_CALM


def test_many_settings_in_one_frame_change_every_window_once() -> None:
    both = Both()
    both.call(b"a", end=False)
    both.settle()
    stream, changes = both.server.streams[1], []

    class Noting(Stream):
        @property
        def window(self) -> int:
            return frames.WINDOW

        @window.setter
        def window(self, value: int) -> None:
            changes.append(value)

    both.server.streams[1] = Noting(both.server, stream.id)
    changes.clear()
    payload = b"".join(frames.settings({frames.INITIAL_WINDOW_SIZE: size})[9:] for size in range(2_000))
    both.server.receive(frames.frame(frames.SETTINGS, 0, 0, payload))
    assert changes == [1_999]
    assert both.server.peer_window == 1_999


def test_trailers_of_calls_that_have_just_been_taken_back_cost_the_server_nothing() -> None:
    both = Both()
    calls = [both.call(b"a") for _ in range(CALM // RESET_COST + 1)]
    both.settle()
    for stream in list(both.server.streams.values()):
        both.server.headers(stream.id, ANSWER)
    both.settle()
    for stream in list(both.server.streams.values()):
        stream.trailers(GOOD)
    for stream in calls:
        both.client.write(frames.reset(stream.id, Code.CANCEL))
        stream.leave()
    both.settle()
    assert not both.client.closed
    assert not both.server.closed


@pytest.mark.parametrize("from_server", [True, False])
def test_a_peer_may_ping_and_grow_its_window_for_each_message_of_ours(from_server: bool) -> None:
    both = Both()
    stream = both.call(b"a", end=False)
    both.settle()
    sender, end = (both.server.streams[1], both.server) if from_server else (stream, both.client)
    for _ in range(CALM):
        sender.send(b"a")
        end.take()
        end.receive(frames.window_update(0, 6) + frames.window_update(1, 6) + frames.frame(frames.PING, 0, 0, bytes(8)))
        if end.closed:
            break
    assert not end.closed
