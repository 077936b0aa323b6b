# SPDX-License-Identifier: Apache-2.0
"""The prefixes that a request excludes, read once.

Does:  reads CIDR texts as `addresses` does, but straight to ranges of numbers: a peer may send thousands of them, and
       every address that is looked at must not be compared with each. What cannot be read is left out.
Place: between a request and the pools of this room.
State: a cache of texts read before; they come again with every refresh.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterable
from typing import Self

from nsm_sdk.ipam.addresses import LONGEST, Address, Network, bounds
from nsm_sdk.ipam.ranges import Ranges

_MAPPED = bytes(10) + b"\xff\xff"


class Exclusion:
    """Addresses of both families that must not be given out."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int]] = []
        for text in texts:
            span = _span(text) if len(text) <= LONGEST else None
            if span is not None:
                (v4 if span[0] == 4 else v6).append(span[1:])
        self._v4 = Ranges(v4)
        self._v6 = Ranges(v6)

    def __contains__(self, item: Address | Network) -> bool:
        """Whether the address, or any address of the prefix, is excluded."""
        return self.of(item.version).meeting(*bounds(item)) is not None

    def of(self, version: int) -> Ranges:
        """The excluded addresses of one family, as numbers; read only."""
        return self._v4 if version == 4 else self._v6

    def and_also(self, addresses: Iterable[Address]) -> Self:
        """The same with these addresses."""
        more = type(self)()
        more._v4, more._v6 = self._v4.copy(), self._v6.copy()
        for address in addresses:
            more.of(address.version).add(*bounds(address))
        return more


@functools.lru_cache(maxsize=8192)
def _span(text: str) -> tuple[int, int, int] | None:
    """Family, first and last address of a CIDR; None where it is none."""
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        return None
    try:
        raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return None
    mask, bits = int(length), len(raw) * 8
    if mask > bits:
        return None
    if mask >= 96 and raw[:12] == _MAPPED:
        raw, mask, bits = raw[12:], mask - 96, 32
    rest = bits - mask
    first = int.from_bytes(raw, "big") >> rest << rest
    return 4 if bits == 32 else 6, first, first | ((1 << rest) - 1)
