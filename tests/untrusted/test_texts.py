# SPDX-License-Identifier: Apache-2.0
"""Texts made to take long: what looks at a peer's text looks at it once.

Does:  hands over texts on which a careless reader takes time squared, or whose expansion would fill the memory. Such a
       reader runs into the test's own time-out: each would take minutes.
Place: errors on the wire, label templates.
State: none.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core.templates import LONGEST, LabelTemplates
from nsm_sdk.registry import select_endpoints
from nsm_sdk.transport.status import clean

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize("piece", ["eyJ", "eyJaaaa.", "-eyJaaaa", "a.", "\x00", "\ud800"])
def test_an_error_text_of_any_length_is_cleaned_at_once(piece: str) -> None:
    cleaned = clean(piece * 2_000_000, 2048)
    assert len(cleaned) <= 2048
    cleaned.encode()


@given(
    st.text(st.sampled_from("eyJ .-_/'\"(=aZ0"), max_size=40),
    st.text(st.sampled_from(" '\")\n,;"), min_size=1, max_size=1),
    st.text(max_size=40),
)
def test_no_token_stays_in_an_error_text(before: str, between: str, after: str) -> None:
    cleaned = clean(before + TOKEN + between + after)
    assert "c2lnbmF0dXJl" not in cleaned
    assert "eyJzdWIi" not in cleaned


@pytest.mark.parametrize(
    "text", ["eyJ is how a token begins.", "see eyJab.c", "a.b.c of nsm.io", "version 1.18.0-rc.1"]
)
def test_what_is_no_token_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    "piece",
    ["{{", "{{ ", "{{- ", '{{"', "{{`", "{{/*", "}}{{", "{{(", "{{ if . }}", "{{ . }}", '{{ printf "%s"', "{{ .a | "],
)
@pytest.mark.parametrize("size", [LONGEST, 2_000_000])
def test_a_template_of_any_length_is_rendered_at_once(piece: str, size: int) -> None:
    labels = {f"label-{number}": "x" * 4096 for number in range(1024)}
    assert len(LabelTemplates(labels).render(piece * (size // len(piece)))) <= size


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ print " + ". " * 2000 + "}}",
        "{{ println " + ". " * 2000 + "}}",
        "{{ printf `" + "%v" * 900 + "` " + ". " * 900 + "}}",
        "{{ print " + ".a " * 1300 + "}}",
        "{{ .a }}" * 500,
        "{{ " + "(print .a .a) | print " * 150 + ".a }}",
        "{{ print " + "(print " * 31 + ".a .a" + ")" * 31 + "}}",
    ],
)
def test_a_template_that_would_expand_beyond_measure_stays_what_it_is(bomb: str) -> None:
    labels = {"a": "x" * 4096, **{f"label-{number}": "y" * 4096 for number in range(1024)}}
    assert len(bomb) <= LONGEST
    rendered = LabelTemplates(labels).render(bomb)
    assert rendered in (bomb, "x" * 4096) or len(rendered) <= LONGEST


def test_a_service_of_bombs_costs_a_client_no_more_than_its_endpoints() -> None:
    service = NetworkService(name="svc")
    for _ in range(100):
        match = service.matches.add(fallthrough=True)
        match.source_selector["a"] = "{{" * 2000
        match.routes.add(destination_selector={"app": "{{ print " + ". " * 2000 + "}}"})
    endpoint = NetworkServiceEndpoint(name="nse", network_service_names=["svc"])
    endpoint.network_service_labels["svc"].labels["app"] = "x"
    labels = {f"label-{number}": "y" * 4096 for number in range(1024)}
    assert select_endpoints(labels, service, [endpoint] * 100) == []
