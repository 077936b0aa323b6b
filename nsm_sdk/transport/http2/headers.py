# SPDX-License-Identifier: Apache-2.0
"""Header blocks, and what gRPC writes into them.

Does:  encodes and decodes header blocks (HPACK is the `hpack` library's; blocks that are wholly in the table are kept),
       and the texts of gRPC: time-outs, messages of a status, binary metadata.
Place: both ends of a connection.
State: the two tables of a connection.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias
from urllib.parse import quote, unquote

import hpack

from nsm_sdk.transport.http2.frames import Broken, Code

Pairs: TypeAlias = Iterable[tuple[str, str]]
Fixed: TypeAlias = tuple[tuple[str, str], ...]

# It writes whole headers at level DEBUG, and tokens are among them.
logging.getLogger("hpack").setLevel(logging.WARNING)

TABLE: Final = 4096
"""Bytes of a table: HTTP/2's own choice, ours too where a peer allows more."""
_KEPT: Final = 256
_INDEXED: Final = 0x80
_LITERAL: Final = b"\x10"
"""Begins a header with a name and a value of its own, never to be indexed."""
_PLAIN: Final = re.compile(r"[ -$&-~]*")
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def _indexed(block: bytes) -> bool:
    """Whether a block only points into the table, so that it neither changes it nor says anything else."""
    return min(block, default=0) >= _INDEXED


class Encoder:
    """Header blocks of one direction of a connection; `fixed` headers are put into the table, `varying` ones never."""

    def __init__(self) -> None:
        self._hpack = hpack.Encoder()
        self._blocks: dict[Fixed, bytes] = {}

    def block(self, fixed: Fixed, varying: Pairs = ()) -> bytes:
        """The block, to be sent before any other that is encoded later."""
        known = self._blocks.get(fixed)
        if known is None:
            known = self._hpack.encode(fixed, huffman=False)
            if _indexed(known):
                self._blocks[fixed] = known
            else:
                # What was put in moved all others.
                self._blocks.clear()
        if not varying:
            return known
        parts = [known]
        for name, value in varying:
            # Never indexed: tokens do not belong in tables, and other values do not come twice.
            key, text = name.encode(), value.encode()
            parts += (_LITERAL, _length(len(key)), key, _length(len(text)), text)
        return b"".join(parts)

    def resize(self, size: int) -> None:
        """The peer's table holds `size` bytes."""
        self._hpack.header_table_size = min(size, TABLE)
        self._blocks.clear()


def _length(size: int) -> bytes:
    """A length without Huffman coding: an integer with a prefix of seven bits."""
    if size < 0x7F:
        return bytes((size,))
    rest, found = size - 0x7F, bytearray((0x7F,))
    while rest >= 0x80:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


class Decoder:
    """Header blocks of the other direction. `limit`: bytes of all headers of a block, counted as HTTP/2 counts them."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        """Bytes of the last block, counted the same."""
        self._limit = limit
        self._hpack = hpack.Decoder(max_header_list_size=limit)
        self._known: dict[bytes, tuple[dict[str, str], int]] = {}

    def fields(self, block: bytes) -> dict[str, str]:
        """The headers, not to be changed; the last value of a name wins. Raises Broken."""
        head, rest = _parts(block)
        known = self._known.get(head)
        if known is None:
            known = self._decode(head)
            if not _indexed(head):
                # It may have changed the table.
                self._known.clear()
            elif len(self._known) < _KEPT:
                self._known[head] = known
        fields, self.size = known
        if rest:
            fields = {**fields, **rest}
            self.size += size_of(rest.items())
            if self.size > self._limit:
                raise Broken(Code.ENHANCE_YOUR_CALM, "headers are too large")
        return fields

    def _decode(self, block: bytes) -> tuple[dict[str, str], int]:
        try:
            pairs = [(name.decode(), value.decode("utf-8", "replace")) for name, value in self._raw(block)]
        except hpack.OversizedHeaderListError as error:
            raise Broken(Code.ENHANCE_YOUR_CALM, "headers are too large") from error
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise Broken(Code.COMPRESSION_ERROR, "headers cannot be decoded") from error
        return dict(pairs), size_of(pairs)

    def _raw(self, block: bytes) -> Iterable[tuple[bytes, bytes]]:
        return self._hpack.decode(block, raw=True)


def _parts(block: bytes) -> tuple[bytes, dict[str, str] | None]:
    """A block as `Encoder` makes it, without what the library does for it: what points into the table, and what does
    not concern it. Any other block is answered whole."""
    at = block.find(_LITERAL)
    head = block[:at] if at >= 0 else block
    if at < 0 or not _indexed(head) or 0xFF in head:
        return block, None
    found: dict[str, str] = {}
    end = len(block)
    try:
        while at < end:
            size = block[at + 1]
            if block[at] != _LITERAL[0] or size >= 0x7F:
                return block, None
            name, at = block[at + 2 : at + 2 + size], at + 2 + size
            size, at = block[at], at + 1
            if size >= 0x80:
                return block, None
            if size == 0x7F:
                shift = 0
                while True:
                    part, at = block[at], at + 1
                    size += (part & 0x7F) << shift
                    shift += 7
                    if part < 0x80:
                        break
                    if shift > 28:
                        return block, None
            if at + size > end:
                return block, None
            found[name.decode()] = block[at : at + size].decode()
            at += size
    except (IndexError, UnicodeDecodeError):
        return block, None
    return head, found


def size_of(pairs: Pairs) -> int:
    """Bytes of headers, counted as HTTP/2 counts them."""
    return sum(len(name) + len(value) + 32 for name, value in pairs)


def timeout_text(seconds: float) -> str:
    """`grpc-timeout`, in the finest unit that eight digits can say, rounded up."""
    for unit in "num":
        amount = math.ceil(seconds / _UNITS[unit])
        if amount < 100_000_000:
            return f"{amount}{unit}"
    return f"{min(math.ceil(seconds), 99_999_999)}S"


def read_timeout(text: str) -> float | None:
    """Seconds of a `grpc-timeout`; None for what is none."""
    found = _TIMEOUT.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


def message_text(text: str) -> str:
    """A status text as `grpc-message`: percent-encoded UTF-8."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def read_message(text: str) -> str:
    """The status text of a `grpc-message`."""
    return unquote(text, errors="replace") if "%" in text else text


def binary_text(value: bytes) -> str:
    """The value of a `-bin` key."""
    return base64.b64encode(value).rstrip(b"=").decode()


def read_binary(text: str) -> bytes:
    """The bytes of a `-bin` key; empty for what is no base64."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def metadata_of(fields: Mapping[str, str]) -> dict[str, str]:
    """What an application sent: without gRPC's own headers and without binary values."""
    return {
        key: value
        for key, value in fields.items()
        if key not in _OWN and not key.startswith("grpc-") and not key.endswith("-bin")
    }


_OWN: Final = frozenset((":method", ":scheme", ":path", ":authority", ":status", "te", "content-type"))
