# SPDX-License-Identifier: Apache-2.0
"""Registrations across domains, and names and addresses that hold in all of them.

`ByDomain` separates names of other domains from the own ones, `SwapIP` writes addresses as others see them, and
`unique_name` makes names that no other endpoint has.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from nsm_sdk.api import NetworkServiceEndpoint, is_interdomain
from nsm_sdk.core import Call, E, Found, Layer, Observer, Query, RegistryElement, RegistryNext, registry_end


def unique_name(prefix: str) -> str:
    """`prefix` and a random UUID, joined by a dash: in a registry the last one to register a name has it."""
    return f"{prefix}-{uuid.uuid4()}"


def names_domain(entry: Any) -> bool:
    """Whether a service or endpoint, or a service that an endpoint offers, names a domain."""
    services = entry.network_service_names if isinstance(entry, NetworkServiceEndpoint) else ()
    return is_interdomain(entry.name) or any(is_interdomain(service) for service in services)


class ByDomain(RegistryElement[E]):
    """Sends entries and queries that name a domain (`service@domain`) to `elsewhere`, and everything else on.

    Nothing of other domains reaches what stands below this element: what is kept for the own domain only, such as
    expiry and store.
    """

    def __init__(self, elsewhere: Layer[RegistryNext[E]]) -> None:
        self._elsewhere = elsewhere

    def children(self) -> Mapping[str, Layer[RegistryNext[E]]]:
        return {"other domains": self._elsewhere}

    def bind(self, next: RegistryNext[E], observe: Observer | None = None) -> RegistryNext[E]:
        elsewhere: RegistryNext[E] = self._elsewhere.bind(registry_end(), observe)

        def register(call: Call, entry: E) -> Any:
            return (elsewhere if names_domain(entry) else next).register(call, entry)

        def unregister(call: Call, entry: E) -> Any:
            return (elsewhere if names_domain(entry) else next).unregister(call, entry)

        def find(call: Call, query: Query[E]) -> AsyncGenerator[Found[E], None]:
            return (elsewhere if names_domain(query.entry) else next).find(call, query)

        return RegistryNext(register, unregister, find)


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
    """Replaces the IP address in an endpoint's URL by the one that others see, on the way out and in answers.

    `addresses`: inside address -> outside address (and back, where answers shall be translated back); the map is
    read at each call and may change. Stands in a manager proxy's endpoint registry.
    """

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
