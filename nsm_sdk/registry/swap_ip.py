# SPDX-License-Identifier: Apache-2.0
"""Addresses that others see.

Does:  replaces the IP address in an endpoint's URL by its outside one, on the way out and in answers.
Place: a manager proxy's endpoint registry.
State: none; the map belongs to whoever made it and may change.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from nsm_sdk.api import NetworkServiceEndpoint
from nsm_sdk.core import Call, Found, Query, RegistryElement, RegistryNext

_HOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(\[[0-9A-Fa-f:.]+\]|[^/:\[\]@?#]+)(:\d+.*)", re.DOTALL)


def swapped(url: str, addresses: Mapping[str, str]) -> str:
    """The URL with its host replaced if it is a key; a URL without a port, or that is none, stays as it is."""
    found = _HOST.fullmatch(url)
    if found is None:
        return url
    new = addresses.get(found[2].strip("[]"))
    if new is None:
        return url
    return f"{found[1]}[{new}]{found[3]}" if ":" in new else f"{found[1]}{new}{found[3]}"


class SwapIP(RegistryElement[NetworkServiceEndpoint]):
    """`addresses`: inside address -> outside address (and back, where answers shall be translated back)."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        entry.url = swapped(entry.url, self._addresses)
        registered = await next.register(call, entry)
        registered.url = swapped(registered.url, self._addresses)
        return registered

    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        entry.url = swapped(entry.url, self._addresses)
        await next.unregister(call, entry)

    async def find(
        self, call: Call, query: Query[NetworkServiceEndpoint], next: RegistryNext[NetworkServiceEndpoint]
    ) -> AsyncGenerator[Found[NetworkServiceEndpoint], None]:
        asked = NetworkServiceEndpoint()
        asked.CopyFrom(query.entry)
        asked.url = swapped(asked.url, self._addresses)
        async with aclosing(next.find(call, Query(asked, query.watch))) as stream:
            async for found in stream:
                found.entry.url = swapped(found.entry.url, self._addresses)
                yield found
