# SPDX-License-Identifier: Apache-2.0
"""Names of other domains go elsewhere.

Does:  sends entries and queries that name a domain (`service@domain`) into a branch, and everything else on.
Place: a registry, above what is kept for the own domain only (expiry, store).
State: none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from nsm_sdk.api import NetworkServiceEndpoint, is_interdomain
from nsm_sdk.core import Call, E, Found, Layer, Observer, Query, RegistryElement, RegistryNext, registry_end


def names_domain(entry: Any) -> bool:
    """Whether a service or endpoint, or a service that an endpoint offers, names a domain."""
    services = entry.network_service_names if isinstance(entry, NetworkServiceEndpoint) else ()
    return is_interdomain(entry.name) or any(is_interdomain(service) for service in services)


class ByDomain(RegistryElement[E]):
    """`elsewhere` takes the names of other domains; nothing of them reaches what stands below this element."""

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
