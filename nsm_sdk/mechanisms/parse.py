# SPDX-License-Identifier: Apache-2.0
"""Reads the texts of a peer's connection, strictly.

Does:  addresses, prefixes, MACs, ports and protocol numbers, each to canonical values or InvalidRequest with the
       field, the text and a remedy.
Place: under `desired`; whatever a peer sends goes through here before it reaches a kernel.
State: none.
"""

from __future__ import annotations

import re
import socket
from functools import lru_cache

from nsm_sdk.errors import InvalidRequest
from nsm_sdk.mechanisms.model import Address

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NUMBER = re.compile(r"[0-9]{1,5}")
_RECENT = 1024
"""Either end of a connection, and its refreshes, read the same texts."""


def _refuse(what: str, text: str, where: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"{text[:80]!r} in {where} is not {what}", hint=hint)


def _raw(text: str) -> bytes | None:
    """4 or 16 bytes; None for what is not an address. The C library takes no zones and no leading zeros."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _text(raw: bytes) -> str:
    """As the C library writes it, which is how observed addresses are written."""
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def _split(text: str) -> tuple[bytes, int] | None:
    """Address and prefix length of `address[/length]`; None for anything else."""
    ip, slash, length = text.partition("/")
    raw = _raw(ip)
    if raw is None:
        return None
    bits = len(raw) * 8
    if not slash:
        return raw, bits
    if not _NUMBER.fullmatch(length) or int(length) > bits:
        return None
    return raw, int(length)


@lru_cache(_RECENT)
def address(text: str, where: str) -> Address:
    """An interface address; /32 or /128 where no prefix is given."""
    parsed = _split(text)
    if parsed is None:
        raise _refuse("an address", text, where, "give an address with a prefix, like 172.16.0.1/32")
    raw, bits = parsed
    if not any(raw) or (raw[0] == 0xFF if len(raw) == 16 else raw[0] >= 224):
        raise _refuse("an address for an interface", text, where, "give a unicast address")
    return Address(_text(raw), bits)


@lru_cache(_RECENT)
def masked(ip: str, bits: int) -> int:
    """The network of an address as a number: its first `bits` bits, the others 0."""
    raw = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    rest = len(raw) * 8 - bits
    return int.from_bytes(raw, "big") >> rest << rest


def network(ip: str, bits: int) -> str:
    """The network address of a canonical address."""
    size = 16 if ":" in ip else 4
    return ip if bits == size * 8 else _text(masked(ip, bits).to_bytes(size, "big"))


@lru_cache(_RECENT)
def destination(text: str, where: str) -> tuple[str, int]:
    """Network address and prefix length; bits of the host part are masked."""
    parsed = _split(text)
    if parsed is None:
        raise _refuse("a prefix", text, where, "give a prefix like 10.0.0.0/8 or fd00::/64")
    raw, bits = parsed
    return network(_text(raw), bits), bits


@lru_cache(_RECENT)
def ip_text(text: str, where: str) -> str:
    """A plain address, canonical; a prefix length after it is dropped."""
    raw = _raw(text.partition("/")[0])
    if raw is None:
        raise _refuse("an address", text, where, "give a plain address like 172.16.0.1")
    return _text(raw)


def mac_text(text: str, where: str) -> str:
    """A unicast MAC in lower case with colons."""
    lower = text.lower().replace("-", ":")
    if not _MAC.fullmatch(lower) or int(lower[:2], 16) & 1 or lower == "00:00:00:00:00:00":
        raise _refuse("a unicast MAC address", text, where, "give one like 02:00:00:00:00:01")
    return lower


def ports(text: str, where: str) -> tuple[int, int] | None:
    """`N` or `A-B` as an inclusive range; None for any."""
    if not text:
        return None
    first, dash, last = text.partition("-")
    pair = (first, last if dash else first)
    if not all(_NUMBER.fullmatch(one) for one in pair):
        raise _refuse("a port or a range of ports", text, where, "give N or A-B with numbers up to 65535")
    low, high = int(pair[0]), int(pair[1])
    if not 0 < low <= high <= 65_535:
        raise _refuse("a port or a range of ports", text, where, "ports go from 1 to 65535, the smaller first")
    return low, high


def protocol(text: str) -> int:
    """An IP protocol number; 0 for any."""
    if not text:
        return 0
    if not _NUMBER.fullmatch(text) or int(text) > 255:
        raise _refuse("an IP protocol number", text, "policies.proto", "give a number like 6 (TCP) or 17 (UDP)")
    return int(text)
