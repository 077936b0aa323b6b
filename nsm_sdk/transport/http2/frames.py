# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6).

Does:  names the numbers, packs frames, takes padding and priority off; raises `Broken` for what a peer must not send.
Place: below both ends of a connection.
State: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""

HEAD: Final = Struct(">HBBBI")
"""Length (two bytes and one), type, flags, stream."""

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

FRAME_SIZE: Final = 16_384
"""Bytes of a frame's payload where nothing else was agreed."""
WINDOW: Final = 65_535
"""Bytes that may be on their way where nothing else was agreed, of a stream and of a connection."""
LARGEST: Final = 2**31 - 1
"""Largest window and largest stream number."""

_SETTING: Final = Struct(">HI")
_NUMBER: Final = Struct(">I")


class Code(IntEnum):
    """Why a stream or a connection ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Broken(Exception):
    """A peer broke the protocol; the connection ends with this code."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamBroken(Broken):
    """A peer broke the protocol on one stream; the stream is reset with this code, and the connection lives on."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = len(payload)
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def header_frames(stream: int, block: bytes, flags: int, largest: int) -> bytes:
    """A header block: HEADERS, with as many CONTINUATION as it takes."""
    if len(block) <= largest:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[at : at + largest] for at in range(0, len(block), largest)]
    frames = [frame(HEADERS, flags, stream, parts[0])]
    frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(frames)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings of a peer, those we know checked."""
    if len(payload) % _SETTING.size:
        raise Broken(Code.FRAME_SIZE_ERROR, "settings are cut short")
    for key, value in _SETTING.iter_unpack(payload):
        if key == INITIAL_WINDOW_SIZE and value > LARGEST:
            raise Broken(Code.FLOW_CONTROL_ERROR, "a window is too large")
        if key == MAX_FRAME_SIZE and not FRAME_SIZE <= value < 2**24:
            raise Broken(Code.PROTOCOL_ERROR, "a frame size is out of range")
        if key == ENABLE_PUSH and value > 1:
            raise Broken(Code.PROTOCOL_ERROR, "push is neither on nor off")
        yield key, value


def number(payload: bytes) -> int:
    """The number that is the whole payload of RST_STREAM or WINDOW_UPDATE."""
    if len(payload) != _NUMBER.size:
        raise Broken(Code.FRAME_SIZE_ERROR, "a frame is no number")
    value: int = _NUMBER.unpack(payload)[0]
    return value


def reset(stream: int, code: Code) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def goaway(last: int, code: Code, text: str = "") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last) + _NUMBER.pack(code) + text.encode()[:256])


def read_goaway(payload: bytes) -> tuple[int, int, str]:
    """Last stream, code and text of a GOAWAY."""
    if len(payload) < 8:
        raise Broken(Code.FRAME_SIZE_ERROR, "a GOAWAY is cut short")
    last, code = _NUMBER.unpack_from(payload)[0], _NUMBER.unpack_from(payload, 4)[0]
    return last & LARGEST, code, payload[8:264].decode("ascii", "replace")


def parent(payload: bytes, flags: int) -> int:
    """The stream that the payload of a PRIORITY, or of HEADERS with a priority, depends on."""
    at = 1 if flags & PADDED else 0
    value: int = _NUMBER.unpack_from(payload, at)[0]
    return value & LARGEST


def bare(payload: bytes, flags: int) -> bytes:
    """The payload of DATA or HEADERS without padding and priority."""
    at, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise Broken(Code.FRAME_SIZE_ERROR, "a frame is shorter than its padding")
        at, end = 1, end - payload[0]
    if flags & PRIORITISED:
        at += 5
    if at > end:
        raise Broken(Code.PROTOCOL_ERROR, "a frame is shorter than its padding")
    return payload[at:end]
