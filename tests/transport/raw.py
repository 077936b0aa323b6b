# SPDX-License-Identifier: Apache-2.0
"""A peer that speaks HTTP/2 frame by frame, and need not be polite.

Does:  opens a connection or waits for one, sends what a test says, and reads frames.
Place: tests/transport.
State: one socket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from nsm_sdk.transport.http2 import frames
from nsm_sdk.transport.http2.headers import Decoder, Fixed, encode

HELLO = frames.PREFACE + frames.settings({})
CALL: Fixed = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/networkservice.NetworkService/Request"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
ANSWER: Fixed = ((":status", "200"), ("content-type", "application/grpc"))
EMPTY = b"\0\0\0\0\0"
"""An empty message."""

NONSENSE = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            frames.frame,
            st.integers(0, 12),
            st.integers(0, 255),
            st.sampled_from([0, 1, 1, 1, 3, frames.LARGEST]),
            st.one_of(st.binary(max_size=40), st.sampled_from([b"\x88", EMPTY, bytes(4), bytes(8)])),
        ),
    ),
    max_size=8,
)
"""Bytes and frames of any kind, about the stream that is open and about others."""


@dataclass
class Raw:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    decoder: Decoder = field(default_factory=lambda: Decoder(1 << 20))

    def send(self, *parts: bytes) -> None:
        """Send bytes."""
        self.writer.write(b"".join(parts))

    def headers(self, stream: int, fixed: Fixed = CALL, *, end: bool = False, **more: str) -> bytes:
        """A HEADERS frame; `grpc_timeout="1S"` becomes `grpc-timeout`."""
        varying = [(key.replace("_", "-"), value) for key, value in more.items()]
        block = encode(fixed, varying)
        return frames.header_frames(stream, block, frames.END_STREAM if end else 0, frames.FRAME_SIZE)

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, payload. Raises IncompleteReadError at the end."""
        high, low, kind, flags, stream = frames.HEAD.unpack(await self.reader.readexactly(9))
        return kind, flags, stream, await self.reader.readexactly(high << 8 | low)

    async def until(self, wanted: int, stream: int | None = None) -> tuple[int, bytes]:
        """Flags and payload of the next frame of this kind; header blocks between are decoded, to keep the table."""
        while True:
            kind, flags, on, payload = await self.frame()
            if kind == wanted and (stream is None or stream == on):
                return flags, payload
            if kind == frames.HEADERS:
                dict(self.decoder.pairs(payload))

    async def pairs(self, stream: int) -> dict[str, str]:
        """The next headers of a stream."""
        _, payload = await self.until(frames.HEADERS, stream)
        return dict(self.decoder.pairs(payload))

    async def goaway(self) -> frames.Code:
        """Why the peer ends the connection, which it does."""
        while True:
            _, payload = await self.until(frames.GOAWAY)
            _, code, _ = frames.read_goaway(payload)
            # An error where it did not read the rest of what was sent.
            with contextlib.suppress(OSError):
                assert await self.reader.read() == b""
            return frames.Code(code)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def calling(url: str) -> AsyncGenerator[Raw, None]:
    """A caller of a listener of ours that has introduced itself."""
    raw = Raw(*await asyncio.open_unix_connection(url.removeprefix("unix://")))
    try:
        raw.send(HELLO)
        yield raw
    finally:
        await raw.close()


@asynccontextmanager
async def serving(path: str, behave: Callable[[Raw], Coroutine[Any, Any, None]]) -> AsyncGenerator[None, None]:
    """A server that introduces itself and then does what the test says, with every connection."""
    tasks: set[asyncio.Task[Any]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        raw = Raw(reader, writer)
        try:
            raw.send(frames.settings({}))
            await reader.readexactly(len(frames.PREFACE))
            await behave(raw)
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            tasks.discard(task)
            await raw.close()

    server = await asyncio.start_unix_server(accepted, path)
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
