# SPDX-License-Identifier: Apache-2.0
"""What entries are indexed by.

Does:  names the facets of an entry (its name, each service it offers, …) and those that a query asks for: an entry that
       a query means has every facet of the query. Only then is the full query matched.
Place: the store and its watchers.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NS, NSE, E, Kind
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.registry.matching import endpoint_matches, service_matches

Facet: TypeAlias = "tuple[str, str | int]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher(Generic[E]):
    """How one kind of entries is indexed and matched."""

    facets: Callable[[E], tuple[Facet, ...]]
    """Of an entry, without its name; also of a query."""
    matches: Callable[[E, E], bool]
    """(query, entry) -> whether it is meant."""


def _service_facets(service: NetworkService) -> tuple[Facet, ...]:
    return (("payload", service.payload),) if service.payload else ()


def _endpoint_facets(endpoint: NetworkServiceEndpoint) -> tuple[Facet, ...]:
    found: list[Facet] = [("service", name) for name in dict.fromkeys(endpoint.network_service_names)]
    if endpoint.network_service_labels:
        found.extend(("labels", name) for name in endpoint.network_service_labels)
    return tuple(found)


_NS = Matcher(facets=_service_facets, matches=service_matches)
_NSE = Matcher(facets=_endpoint_facets, matches=endpoint_matches)


def matcher_of(kind: Kind[E]) -> Matcher[E]:
    """The matcher for a kind of entries."""
    matchers: dict[str, Any] = {NS.label: _NS, NSE.label: _NSE}
    try:
        found: Matcher[E] = matchers[kind.label]
    except KeyError:
        raise ProgrammingError(f"no way to match {kind.label!r}", hint="a kind is NS or NSE") from None
    return found
