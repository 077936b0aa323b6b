# SPDX-License-Identifier: Apache-2.0
"""Matching: properties, and the corners that the tables of the Go functions leave out.

Does:  hypothesis over labels, selectors, services and texts.
Place: tests of `nsm_sdk.registry.matching`.
State: none.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Match, NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NSE
from nsm_sdk.core.templates import LabelTemplates
from nsm_sdk.registry import matching
from nsm_sdk.registry.matching import (
    endpoint_matches,
    has_expired,
    is_subset,
    select_endpoints,
    select_forwarders,
    why_not,
)
from nsm_sdk.registry.store import matcher_of
from tests.registry.test_store import ENTRIES, nse

WORDS = st.sampled_from(("a", "b", "c"))
LABELS = st.dictionaries(WORDS, WORDS, max_size=3)
SELECTORS = st.dictionaries(WORDS, st.sampled_from(("a", "b", "", "{{.a}}", "{{ .b }}", "{{")), max_size=3)
MATCHES = st.builds(
    lambda source, routes, through, metadata: _match(source, routes, through, metadata),
    SELECTORS,
    st.lists(SELECTORS, max_size=2),
    st.booleans(),
    st.none() | LABELS,
)


def _match(
    source: dict[str, str], routes: list[dict[str, str]], through: bool, metadata: dict[str, str] | None
) -> Match:
    match = Match(source_selector=source, fallthrough=through)
    for route in routes:
        match.routes.add(destination_selector=route)
    if metadata is not None:
        match.metadata.SetInParent()
        match.metadata.labels.update(metadata)
    return match


def _endpoints(labels: list[dict[str, str]]) -> list[NetworkServiceEndpoint]:
    return [nse(f"e-{at}", "svc", **each) for at, each in enumerate(labels)]


@given(LABELS, SELECTORS)
def test_a_subset_is_what_a_reader_would_say(labels: dict[str, str], selector: dict[str, str]) -> None:
    expected = len(labels) >= len(selector) and all(
        labels.get(key, "") in (value, LabelTemplates(labels).render(value)) for key, value in selector.items()
    )
    assert is_subset(labels, selector, labels) is expected
    assert is_subset(labels, {}, labels)
    assert is_subset(labels, labels, {})


@given(LABELS, st.lists(MATCHES, max_size=3), st.lists(LABELS, max_size=4))
def test_a_choice_only_leaves_out(client: dict[str, str], matches: list[Match], labels: list[dict[str, str]]) -> None:
    endpoints = _endpoints(labels)
    service = NetworkService(name="svc", matches=matches)
    before = service.SerializeToString(deterministic=True), [one.SerializeToString() for one in endpoints]
    left = select_endpoints(client, service, endpoints)
    assert {one.name for one in left} <= {one.name for one in endpoints}
    routes = max((len(match.routes) for match in matches), default=0)
    assert len(left) <= len(endpoints) * max(routes, 1)
    if not matches:
        assert left == endpoints
    for endpoint in endpoints:
        assert why_not(client, service, endpoint)
    forwarders = select_forwarders(client, service, endpoints, "svc")
    assert {one.name for one in forwarders} <= {one.name for one in endpoints}
    assert before == (service.SerializeToString(deterministic=True), [one.SerializeToString() for one in endpoints])


@given(LABELS, st.lists(MATCHES, min_size=1, max_size=3), st.lists(LABELS, max_size=4))
def test_the_first_match_that_fits_decides(
    client: dict[str, str], matches: list[Match], labels: list[dict[str, str]]
) -> None:
    endpoints = _endpoints(labels)
    fitting = [match for match in matches if is_subset(client, match.source_selector, client)]
    all_of_them = select_endpoints(client, NetworkService(name="svc", matches=matches), endpoints)
    only_fitting = select_endpoints(client, NetworkService(name="svc", matches=fitting), endpoints) if fitting else []
    assert all_of_them == only_fitting
    if fitting and not fitting[0].fallthrough:
        assert all_of_them == select_endpoints(client, NetworkService(name="svc", matches=fitting[:1]), endpoints)


@given(ENTRIES, ENTRIES)
def test_what_matches_has_every_index_key_of_the_query(
    query: NetworkServiceEndpoint, entry: NetworkServiceEndpoint
) -> None:
    query.name = ""
    if endpoint_matches(query, entry):
        index_keys = matcher_of(NSE).index_keys
        assert set(index_keys(query)) <= set(index_keys(entry))


def test_why_an_endpoint_is_no_candidate() -> None:
    service = NetworkService(
        name="svc",
        matches=[
            _match({"app": "x"}, [{"color": "blue"}], False, None),
            _match({}, [{"color": "{{.want}}"}], False, None),
        ],
    )
    endpoint = nse("e", "svc", color="red")
    assert "asked for is {'color': 'green'}" in why_not({"want": "green"}, service, endpoint)
    assert "'color': 'blue'" in why_not({"app": "x"}, service, endpoint)
    del service.matches[1]
    assert "no match" in why_not({}, service, endpoint)
    service.matches[0].source_selector.clear()
    del service.matches[0].routes[:]
    assert "no routes" in why_not({}, service, endpoint)
    endpoint.expiration_time.FromSeconds(5)
    assert "expired" in why_not({}, service, endpoint, 6.0)


def test_expiry() -> None:
    endpoint = nse("e")
    assert not has_expired(endpoint, 1e12)
    endpoint.expiration_time.FromMilliseconds(1500)
    assert not has_expired(endpoint, 1.4)
    assert has_expired(endpoint, 1.5)


def test_forwarders_by_labels() -> None:
    forwarders = [
        nse("plain", "forwarder"),
        nse("kernel", "forwarder", p2p="true"),
        nse("p2mp", "forwarder", p2mp="true"),
    ]
    service = NetworkService(name="svc")

    def left() -> list[str]:
        return [one.name for one in select_forwarders({}, service, forwarders, "forwarder")]

    assert left() == ["plain", "kernel", "p2mp"]
    service.matches.add()
    assert left() == ["kernel"]
    service.matches[0].metadata.labels["p2mp"] = "true"
    assert left() == ["p2mp"]
    service.matches[0].metadata.labels["p2mp"] = "no"
    assert left() == []
    service.matches[0].fallthrough = True
    service.matches.add()
    assert left() == ["kernel"]


def test_each_template_is_rendered_once_however_many_endpoints_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []

    class Counting(LabelTemplates):
        def _render(self, text: str) -> str:
            rendered.append(text)
            return super()._render(text)

    monkeypatch.setattr(matching, "LabelTemplates", Counting)
    service = NetworkService(name="s")
    for number in range(10):
        route = service.matches.add(fallthrough=True).routes.add()
        route.destination_selector["node"] = f"{{{{ .node }}}}-{number}"
    endpoints = [NetworkServiceEndpoint(name=str(number), network_service_names=["s"]) for number in range(50)]
    for endpoint in endpoints:
        endpoint.network_service_labels["s"].labels["node"] = "elsewhere"
    assert select_endpoints({"node": "here"}, service, endpoints) == []
    assert len(rendered) == 10
    rendered.clear()
    text = why_not({"node": "here"}, service, endpoints[0])
    assert "2 more routes" in text
    assert len(rendered) == 8
