# SPDX-License-Identifier: Apache-2.0
"""Which entries a query means, and which endpoints a service's matches leave for a client.

Does:  pure functions over messages: `service_matches`, `endpoint_matches` (queries of a find), `is_subset` (labels with
       templates), `select_endpoints` and `select_forwarders` (choice by a service's matches).
Place: the store, the candidate cache, and the elements that choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nsm_sdk.api import Match, NetworkService, NetworkServiceEndpoint
from nsm_sdk.core.templates import LabelTemplates

_LISTED = 8
"""Routes that an error's text tells of."""
POINT_TO_POINT: Mapping[str, str] = {"p2p": "true"}
"""Labels that a forwarder must have when a service's match asks for nothing else."""


def service_matches(query: NetworkService, service: NetworkService) -> bool:
    """Whether a registered service is meant; empty fields of the query mean any."""
    return (
        (not query.name or query.name == service.name)
        and (not query.payload or query.payload == service.payload)
        and (not query.matches or list(query.matches) == list(service.matches))
    )


def endpoint_matches(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    """Whether a registered endpoint is meant; empty fields of the query mean any.

    All services asked for must be offered, all labels asked for must be there, the URL may be a part, and of the
    expiration only the second counts.
    """
    if query.name and query.name != endpoint.name:
        return False
    if query.network_service_names and not set(query.network_service_names) <= set(endpoint.network_service_names):
        return False
    if query.url and query.url not in endpoint.url:
        return False
    if query.HasField("expiration_time") and (
        not endpoint.HasField("expiration_time") or query.expiration_time.seconds != endpoint.expiration_time.seconds
    ):
        return False
    return not query.network_service_labels or _has_labels(query, endpoint)


def _has_labels(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    for service, wanted in query.network_service_labels.items():
        if service not in endpoint.network_service_labels:
            return False
        labels = endpoint.network_service_labels[service].labels
        if any(labels.get(key) != value for key, value in wanted.labels.items()):
            return False
    return True


def is_subset(labels: Mapping[str, str], selector: Mapping[str, str], values: Mapping[str, str]) -> bool:
    """Whether `labels` satisfy `selector`; its values may be templates over `values`.

    As upstream: a label that is not there reads as empty, but there must be at least as many labels as are asked for.
    """
    return _meets(labels, selector, LabelTemplates(values))


def _meets(labels: Mapping[str, str], selector: Mapping[str, str], templates: LabelTemplates) -> bool:
    if len(labels) < len(selector):
        return False
    for key, wanted in selector.items():
        found = labels.get(key, "")
        if found != wanted and found != templates.render(wanted):
            return False
    return True


def labels_for(endpoint: NetworkServiceEndpoint, service: str) -> Mapping[str, str]:
    """The labels with which an endpoint offers `service`; does not add anything to the message."""
    if service not in endpoint.network_service_labels:
        return {}
    return endpoint.network_service_labels[service].labels


def applicable(service: NetworkService, client: Mapping[str, str]) -> Iterable[Match]:
    """The matches whose source selector fits the client, in order."""
    return _applicable(service, client, LabelTemplates(client))


def _applicable(service: NetworkService, client: Mapping[str, str], templates: LabelTemplates) -> Iterable[Match]:
    return (match for match in service.matches if _meets(client, match.source_selector, templates))


def select_endpoints(
    client: Mapping[str, str], service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> list[NetworkServiceEndpoint]:
    """The endpoints that the service's matches leave for a client with these labels.

    The first match that fits decides, unless it finds nothing and falls through. An endpoint that two routes lead to
    is there twice.
    """
    if not service.matches:
        return list(endpoints)
    # Plain dictionaries, made once: a look into a message's map costs ten times as much, and there may be many.
    values = dict(client)
    offers = [(endpoint, dict(labels_for(endpoint, service.name))) for endpoint in endpoints]
    templates = LabelTemplates(values)
    for match in _applicable(service, values, templates):
        found: list[NetworkServiceEndpoint] = []
        for route in match.routes:
            wanted = dict(route.destination_selector)
            found.extend(endpoint for endpoint, labels in offers if _meets(labels, wanted, templates))
        if not found and match.fallthrough:
            continue
        if match.HasField("metadata") and not match.routes:
            return list(endpoints)
        return found
    return []


def select_forwarders(
    client: Mapping[str, str],
    service: NetworkService,
    forwarders: Sequence[NetworkServiceEndpoint],
    forwarder_service: str,
) -> list[NetworkServiceEndpoint]:
    """The forwarders that may carry a client's connection to `service`: those with the labels that the first fitting
    match asks for in its metadata, point to point if it asks for none."""
    if not service.matches:
        return list(forwarders)
    found: list[NetworkServiceEndpoint] = []
    templates = LabelTemplates(client)
    for match in _applicable(service, client, templates):
        wanted = match.metadata.labels or POINT_TO_POINT
        found = [
            forwarder
            for forwarder in forwarders
            if forwarder_service in forwarder.network_service_labels
            and _meets(labels_for(forwarder, forwarder_service), wanted, templates)
        ]
        if found or not match.fallthrough:
            break
    return found


def why_not(
    client: Mapping[str, str], service: NetworkService, endpoint: NetworkServiceEndpoint, now: float | None = None
) -> str:
    """Why an endpoint is no candidate, in a few words for an error's text."""
    if now is not None and has_expired(endpoint, now):
        return "its registration has expired"
    templates = LabelTemplates(client)
    matches = list(_applicable(service, client, templates))
    if not matches:
        return "no match of the service applies to the client's labels"
    offered = labels_for(endpoint, service.name)
    decides = next((at for at, match in enumerate(matches) if not match.fallthrough), len(matches)) + 1
    routes = [route for match in matches[:decides] for route in match.routes]
    if not routes:
        return "the match that applies has no routes"
    asked = [
        str({key: templates.render(value) for key, value in route.destination_selector.items()})
        for route in routes[:_LISTED]
    ]
    if len(routes) > _LISTED:
        asked.append(f"what {len(routes) - _LISTED} more routes ask for")
    return f"it has {dict(offered)}, asked for is {' or '.join(asked)}"


def has_expired(endpoint: NetworkServiceEndpoint, now: float) -> bool:
    """Whether the registration ended before `now` (seconds since 1970); one without an end never does."""
    if not endpoint.HasField("expiration_time"):
        return False
    return endpoint.expiration_time.seconds + endpoint.expiration_time.nanos / 1e9 <= now
