# SPDX-License-Identifier: Apache-2.0
"""matching.json, row by row: what the Go functions answer, our matching answers.

Does:  runs every row of the four sections.
Place: tests of `nsm_sdk.registry.matching`.
State: none.
"""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.registry.matching import endpoint_matches, is_subset, select_endpoints, service_matches
from tests.fixtures import rows
from tests.wire.deviations import DEVIATIONS


def check(section: str, row: dict[str, Any], answer: object) -> None:
    """The row's answer, unless we differ on purpose, and then a different one."""
    assert (answer == row["result"]) is (("matching", section, row["case"]) not in DEVIATIONS), row["text"]


def service(json: dict[str, Any]) -> NetworkService:
    return ParseDict(json, NetworkService())


def endpoint(json: dict[str, Any]) -> NetworkServiceEndpoint:
    return ParseDict(json, NetworkServiceEndpoint())


@pytest.mark.parametrize("row", rows("matching", "network_service"))
def test_a_service_query(row: dict[str, Any]) -> None:
    check("network_service", row, service_matches(service(row["query"]), service(row["registered"])))


@pytest.mark.parametrize("row", rows("matching", "endpoint"))
def test_an_endpoint_query(row: dict[str, Any]) -> None:
    check("endpoint", row, endpoint_matches(endpoint(row["query"]), endpoint(row["registered"])))


@pytest.mark.parametrize("row", rows("matching", "subset"))
def test_a_subset_of_labels(row: dict[str, Any]) -> None:
    check("subset", row, is_subset(row["A"] or {}, row["B"] or {}, row["values"] or {}))


@pytest.mark.parametrize("row", rows("matching", "select"))
def test_the_choice_of_endpoints(row: dict[str, Any]) -> None:
    left = select_endpoints(
        row["client_labels"] or {},
        service(row["network_service"]),
        [endpoint(one) for one in row["endpoints"] or []],
    )
    check("select", row, [one.name for one in left])
