# SPDX-License-Identifier: Apache-2.0
"""Header blocks and texts of gRPC over HTTP/2.

Does:  what is encoded is decoded the same, by our decoder and by the library's, in any order and with any table.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import logging

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.transport.http2 import frames, grpc_text, headers
from nsm_sdk.transport.http2.frames import Broken, Code
from nsm_sdk.transport.http2.headers import Decoder, encode

NAME = st.one_of(
    st.sampled_from([":path", ":method", ":status", "content-type", "user-agent", "te", "via"]),
    st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20),
)
VALUE = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300),
    st.sampled_from(["POST", "200", "t" * 200, "u" * 4200]),
)
PAIRS = st.lists(st.tuples(NAME, VALUE), max_size=4).map(tuple)


@given(PAIRS, PAIRS)
def test_blocks_are_read_as_they_were_written(
    fixed: tuple[tuple[str, str], ...], varying: tuple[tuple[str, str], ...]
) -> None:
    decoder, theirs = Decoder(1 << 20), hpack.Decoder(1 << 20)
    block = encode(fixed, varying)
    wanted = [*fixed, *varying]
    assert dict(decoder.pairs(block)) == dict(wanted)
    assert decoder.size >= headers.size_of(dict(wanted).items())
    assert [(str(name), str(value)) for name, value in theirs.decode(block)] == wanted
    assert not theirs.header_table.dynamic_entries


@given(st.lists(PAIRS, max_size=4))
def test_blocks_of_others_are_read(sent: list[tuple[tuple[str, str], ...]]) -> None:
    theirs, decoder = hpack.Encoder(), Decoder(1 << 20)
    for pairs in (*sent, *sent):
        assert dict(decoder.pairs(theirs.encode(pairs))) == dict(pairs)
        assert decoder.size >= headers.size_of(dict(pairs).items())


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_are_too_bad_to_be_refused(blocks: list[bytes]) -> None:
    decoder = Decoder(1000)
    for block in blocks:
        try:
            dict(decoder.pairs(block))
        except Broken as error:
            assert error.code in (Code.COMPRESSION_ERROR, Code.ENHANCE_YOUR_CALM)  # noqa: PT017  any of them, or none
            return
        assert decoder.size <= 1000


def test_secrets_are_never_put_into_a_table_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    decoder, theirs = Decoder(1 << 20), hpack.Decoder(1 << 20)
    with caplog.at_level(logging.DEBUG):
        block = encode(((":path", "/x"),), [("nsm-client-token", "a-secret")])
        dict(decoder.pairs(block))
        decoder.pairs(hpack.Encoder().encode([("nsm-client-token", "a-secret")]))
        entries = list(theirs.decode(block, raw=True))
    assert not any(entry[0] == b"nsm-client-token" and entry.indexable for entry in entries)
    assert "a-secret" not in caplog.text


@given(st.floats(1e-9, 9e7))
def test_a_time_out_is_never_shortened_and_hardly_lengthened(seconds: float) -> None:
    text = grpc_text.timeout_text(seconds)
    read = grpc_text.read_timeout(text)
    assert len(text) <= 9
    assert read is not None
    assert seconds * (1 - 1e-9) <= read <= seconds * 1.0001 + 1e-8


@pytest.mark.parametrize("text", ["", "1", "S", "123456789S", "-1S", "1.5S", "1s", "١S", " 1S", "1S\n"])
def test_what_is_no_time_out(text: str) -> None:
    assert grpc_text.read_timeout(text) is None


@given(st.text())
def test_a_message_survives_its_header(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    written = grpc_text.message_text(text)
    assert written.isascii()
    assert written.isprintable() or not written
    assert grpc_text.read_message(written) == text


@given(st.binary(max_size=100))
def test_binary_values_survive_with_and_without_padding(value: bytes) -> None:
    written = grpc_text.binary_text(value)
    assert grpc_text.read_binary(written) == value
    assert grpc_text.read_binary(written + "=" * (-len(written) % 4)) == value


@given(st.text(max_size=20))
def test_what_is_no_base64_is_empty_or_bytes(text: str) -> None:
    assert isinstance(grpc_text.read_binary(text), bytes)


@given(st.binary(max_size=50_000), st.integers(16_384, 20_000))
def test_a_long_block_is_cut_into_frames(block: bytes, largest: int) -> None:
    raw, found, kinds = frames.header_frames(7, block, frames.END_STREAM, largest), b"", []
    while raw:
        high, low, kind, flags, stream = frames.HEAD.unpack_from(raw)
        size = high << 8 | low
        assert size <= largest
        assert stream == 7
        kinds.append((kind, flags))
        found, raw = found + raw[9 : 9 + size], raw[9 + size :]
    assert found == block
    assert kinds[0][0] == frames.HEADERS
    assert kinds[0][1] & frames.END_STREAM
    assert all(kind == frames.CONTINUATION for kind, _ in kinds[1:])
    assert [bool(flags & frames.END_HEADERS) for _, flags in kinds] == [False] * (len(kinds) - 1) + [True]


def test_a_number_without_end_is_refused_before_it_grows() -> None:
    with pytest.raises(Broken) as caught:
        Decoder(1 << 20).pairs(b"\xff" * 5_000 + b"\0")
    assert caught.value.code is Code.COMPRESSION_ERROR
