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
from ipaddress import ip_address, ip_interface, ip_network

from nsm_sdk.errors import InvalidRequest
from nsm_sdk.mechanisms.model import Address

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NUMBER = re.compile(r"[0-9]{1,5}")


def _refuse(what: str, text: str, where: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"{text[:80]!r} in {where} is not {what}", hint=hint)


def _text(raw: bytes) -> str:
    """As the C library writes it, which is how observed addresses are written."""
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def address(text: str, where: str) -> Address:
    """An interface address; /32 or /128 where no prefix is given."""
    try:
        parsed = ip_interface(text)
    except ValueError:
        raise _refuse("an address", text, where, "give an address with a prefix, like 172.16.0.1/32") from None
    if "%" in text or parsed.ip.is_multicast or parsed.ip.is_unspecified:
        raise _refuse("an address for an interface", text, where, "give a unicast address without a zone")
    return Address(_text(parsed.ip.packed), parsed.network.prefixlen)


def destination(text: str, where: str) -> tuple[str, int]:
    """Network address and prefix length; bits of the host part are masked."""
    try:
        parsed = ip_network(text, strict=False)
    except ValueError:
        raise _refuse("a prefix", text, where, "give a prefix like 10.0.0.0/8 or fd00::/64") from None
    if "%" in text:
        raise _refuse("a prefix", text, where, "leave out the zone")
    return _text(parsed.network_address.packed), parsed.prefixlen


def ip_text(text: str, where: str) -> str:
    """A plain address, canonical; a prefix length after it is dropped."""
    try:
        parsed = ip_address(text.partition("/")[0])
    except ValueError:
        raise _refuse("an address", text, where, "give a plain address like 172.16.0.1") from None
    if "%" in text:
        raise _refuse("an address", text, where, "leave out the zone")
    return _text(parsed.packed)


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
