# SPDX-License-Identifier: Apache-2.0
"""Header blocks of HTTP/2.

Does:  encodes header blocks, and decodes and checks those of peers (HPACK is the `hpack` library's; blocks as we write
       them take no library).
Place: both ends of a connection; `grpc_text` is what gRPC writes into them.
State: the table of a peer that uses one.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import hpack
from hpack.table import HeaderTable

from nsm_sdk.transport.http2.frames import Broken, Code, StreamBroken

Pairs: TypeAlias = Iterable[tuple[str, str]]
Fixed: TypeAlias = tuple[tuple[str, str], ...]

# It writes whole headers at level DEBUG, and tokens are among them.
logging.getLogger("hpack").setLevel(logging.WARNING)

_STATIC: Final = tuple((name.decode(), value.decode()) for name, value in HeaderTable.STATIC_TABLE)
_WHOLE: Final = {pair: number for number, pair in enumerate(_STATIC, 1) if pair[1]}
_NAMES: Final = {name: number for number, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_LITERAL: Final = 0x00
_NEVER: Final = 0x10
"""Never to be put into a table, by nobody on the way: what varies may be a token."""


def encode(fixed: Fixed, varying: Pairs = ()) -> bytes:
    """A header block. It leaves the peer's table alone: what is fixed is encoded once for all connections, and what
    varies, tokens among it, nobody keeps."""
    block = _fixed(fixed)
    return b"".join((block, *(_field(name, value, _NEVER) for name, value in varying))) if varying else block


@functools.lru_cache(maxsize=1024)
def _fixed(pairs: Fixed) -> bytes:
    return b"".join(_field(name, value, _LITERAL) for name, value in pairs)


def _field(name: str, value: str, kind: int) -> bytes:
    whole = _WHOLE.get((name, value))
    if whole is not None:
        return bytes((0x80 | whole,))
    known = _NAMES.get(name)
    if known is None:
        head = bytes((kind,)) + _text(name)
    else:
        head = bytes((kind | known,)) if known < 0x0F else bytes((kind | 0x0F, known - 0x0F))
    return head + _text(value)


def _text(text: str) -> bytes:
    """A string without Huffman coding: its length as an integer with a prefix of seven bits, and its bytes."""
    raw = text.encode()
    size = len(raw)
    if size < 0x7F:
        return bytes((size,)) + raw
    found, rest = bytearray((0x7F,)), size - 0x7F
    while rest >= 0x80:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found) + raw


REQUEST: Final = frozenset((":method", ":scheme", ":path"))
RESPONSE: Final = frozenset((":status",))
TRAILERS: Final[frozenset[str]] = frozenset()
"""The pseudo-headers that a block has to have; a request may have `:authority`, too."""

_WITH_AUTHORITY: Final = REQUEST | {":authority"}
_SEEN: Final = 1024
_SEEN_LENGTH: Final = 64
_seen: Final[set[str]] = set()
"""Names that are known to be good; so many, and of that length, because peers choose them."""
_OF_CONNECTIONS: Final = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"))
_REGULAR: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_UNFIT: Final = re.compile(r"[\0\r\n]")


def gathered(pairs: Sequence[tuple[str, str]], required: frozenset[str]) -> dict[str, str]:
    """The headers of a block by name, the last value of a name; `required` says which pseudo-headers it has.

    Raises StreamBroken for a block that HTTP/2 calls malformed.
    """
    found = dict(pairs)
    names, values = [name for name, _ in pairs], [value for _, value in pairs]
    if required is REQUEST and ":authority" in found:
        required = _WITH_AUTHORITY
    regular = names[len(required) :]
    if required != frozenset(names[: len(required)]):
        raise _malformed("pseudo-headers are missing, unknown, there twice, or after other headers")
    # All at once, because every call is checked; most names have been seen before.
    if not _seen.issuperset(regular):
        for name in regular:
            if _REGULAR.fullmatch(name) is None:
                raise _malformed("a header's name has upper case letters, or others that no name may have")
            if len(_seen) < _SEEN and len(name) < _SEEN_LENGTH:
                _seen.add(name)
    text = "".join(values)
    if not text.isprintable() and _UNFIT.search(text):
        raise _malformed("a header's value has characters that no value may have")
    if "" in values[: len(required)] and any(not found[name] for name in required if name != ":authority"):
        raise _malformed("a pseudo-header is empty")
    if not _OF_CONNECTIONS.isdisjoint(found) or found.get("te", "trailers") != "trailers":
        raise _malformed("a header belongs to a connection of HTTP/1")
    return found


def _malformed(text: str) -> StreamBroken:
    return StreamBroken(Code.PROTOCOL_ERROR, text)


ANSWER: Final = ((":status", "200"), ("content-type", "application/grpc"))
"""How an answer begins, of ours and of most others."""
GOOD: Final = (("grpc-status", "0"),)
"""How an answer ends that is no error."""
_KNOWN: Final = {encode(ANSWER): (RESPONSE, dict(ANSWER)), encode(GOOD): (TRAILERS, dict(GOOD))}


class Decoder:
    """Header blocks of a peer. `limit`: bytes of all headers of a block, counted as HTTP/2 counts them."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        """Bytes of the last block, counted the same or a little higher."""
        self._limit = limit
        self._hpack: hpack.Decoder | None = None

    def fields(self, block: bytes, required: frozenset[str]) -> dict[str, str]:
        """The headers of a block, see `gathered`. Raises Broken, or StreamBroken where the connection may live on."""
        # As nearly all answers begin and end.
        if (known := _KNOWN.get(block)) is not None and known[0] is required:
            self.size = len(block)
            return known[1]
        return gathered(self.pairs(block), required)

    def pairs(self, block: bytes) -> list[tuple[str, str]]:
        """The headers of a block as they stand there. Raises Broken."""
        pairs = _plain(block)
        if pairs is None:
            pairs = self._decode(block)
            self.size = size_of(pairs)
        else:
            self.size = len(block) + 64 * len(pairs)
            if self.size > self._limit:
                raise Broken(Code.ENHANCE_YOUR_CALM, "headers are too large")
        return pairs

    def _decode(self, block: bytes) -> list[tuple[str, str]]:
        if self._hpack is None:
            self._hpack = hpack.Decoder(max_header_list_size=self._limit)
        try:
            pairs: Iterable[tuple[bytes, bytes]] = self._hpack.decode(block, raw=True)
            return [(name.decode(), value.decode("utf-8", "replace")) for name, value in pairs]
        except hpack.OversizedHeaderListError as error:
            raise Broken(Code.ENHANCE_YOUR_CALM, "headers are too large") from error
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise Broken(Code.COMPRESSION_ERROR, "headers cannot be decoded") from error


def _plain(block: bytes) -> list[tuple[str, str]] | None:
    """The headers of a block that leaves the table alone and is not Huffman coded, as `encode` makes them; None for any
    other, and for what is no block at all."""
    found: list[tuple[str, str]] = []
    at, end = 0, len(block)
    try:
        while at < end:
            first = block[at]
            at += 1
            if first >= 0x80:
                if not 0x80 < first <= 0x80 + len(_STATIC):
                    return None
                found.append(_STATIC[first - 0x81])
                continue
            if first >= 0x20:
                return None
            known = first & 0x0F
            if known == 0x0F:
                known += block[at]
                at += 1
            if known:
                name = _STATIC[known - 1][0]
            else:
                size = block[at]
                if size >= 0x7F:
                    return None
                name = block[at + 1 : at + 1 + size].decode()
                at += 1 + size
            size = block[at]
            at += 1
            if size >= 0x7F:
                size, at = _long(block, size, at)
            if at + size > end:
                return None
            found.append((name, block[at : at + size].decode()))
            at += size
    except (IndexError, ValueError):
        return None
    return found


def _long(block: bytes, first: int, at: int) -> tuple[int, int]:
    """A length that takes more than a byte, and where its string begins. ValueError where it is Huffman coded."""
    if first >= 0x80:
        raise ValueError("Huffman coded")
    size, shift = 0x7F, 0
    while shift <= 28:
        part = block[at]
        at += 1
        size += (part & 0x7F) << shift
        if part < 0x80:
            return size, at
        shift += 7
    raise ValueError("a length of nonsense")


def size_of(pairs: Pairs) -> int:
    """Bytes of headers, counted as HTTP/2 counts them."""
    return sum(len(name) + len(value) + 32 for name, value in pairs)
