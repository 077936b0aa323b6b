# SPDX-License-Identifier: Apache-2.0
"""The recorded table `names`, row by row, but for the DNS configuration decoder."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from nsm_sdk.api import (
    MAX_INTERFACE_NAME,
    Mechanism,
    ServiceUrl,
    Target,
    check_interface_name,
    interface_name,
    is_interdomain,
    join_domain,
    nanoid,
    prefix,
    prefix_groups,
    split_domain,
    url_groups,
    with_client_info,
)
from tests.api.tables import REFUSED, answer, compare, message
from tests.fixtures import rows


@pytest.mark.parametrize("row", rows("names", "nsurl"))
def test_service_url(row: dict[str, Any]) -> None:
    def ours() -> tuple[object, ...]:
        url = ServiceUrl.parse(row["input"])
        return url.service, dict(url.labels), url.mechanism()

    recorded: object = REFUSED
    if row["error"] is None:
        recorded = row["network_service"], row["labels"], message(Mechanism, row["mechanism"])
    compare("names", "nsurl", row, answer(ours), recorded)


@pytest.mark.parametrize("row", rows("names", "interdomain"))
def test_interdomain(row: dict[str, Any]) -> None:
    name = row["input"]
    assert is_interdomain(name) is row["is"] is not row["not"]
    assert split_domain(name) == (row["target"], row["domain"])


@pytest.mark.parametrize("row", rows("names", "interdomain_join"))
def test_interdomain_join(row: dict[str, Any]) -> None:
    assert join_domain(*row["input"]) == row["output"]


@pytest.mark.parametrize("row", rows("names", "awareness_groups"))
def test_awareness_groups(row: dict[str, Any]) -> None:
    ours = answer(lambda: [[str(url) for url in group] for group in url_groups(row["input"])])
    compare("names", "awareness_groups", row, ours, REFUSED if row["error"] else row["output"])


@pytest.mark.parametrize("row", rows("names", "cidr_groups"))
def test_cidr_groups(row: dict[str, Any]) -> None:
    ours = answer(lambda: [[str(item) for item in group] for group in prefix_groups(row["input"])])
    compare("names", "cidr_groups", row, ours, REFUSED if row["error"] else row["output"])


@pytest.mark.parametrize("row", rows("names", "cidr"))
def test_cidr(row: dict[str, Any]) -> None:
    found = prefix(row["input"])
    assert str(found.network_address) == row["network_address"]
    # Upstream crashes on IPv6; the last address of the prefix is the answer there
    last = str(found[-1]) if "panic" in row else row["broadcast_address"]
    assert str(found.broadcast_address) == last


@pytest.mark.parametrize("row", rows("names", "clientinfo"))
def test_client_info(row: dict[str, Any]) -> None:
    labels = dict(row["labels"])
    assert with_client_info(labels, row["environment"]) == row["output"]
    assert labels == row["labels"]


class Tape:
    """A source of bytes that repeats what the recording fed to the generator."""

    def __init__(self) -> None:
        self._bytes = itertools.cycle((0, 1, 2, 9, 10, 35, 36, 61, 62, 63, 64, 127, 128, 255, 200, 100))

    def __call__(self, count: int) -> bytes:
        return bytes(itertools.islice(self._bytes, count))


@pytest.mark.parametrize("row", rows("names", "nanoid"))
def test_nanoid(row: dict[str, Any]) -> None:
    alphabet = {} if row["alphabet"] == "default" else {"alphabet": row["alphabet"]}
    ours = nanoid(row["size"], random=Tape(), **alphabet)
    compare("names", "nanoid", row, ours, REFUSED if row["error"] else row["output"])


@pytest.mark.parametrize("row", rows("names", "linux_interface_name"))
def test_linux_interface_name(row: dict[str, Any]) -> None:
    name = interface_name(row["input"])
    assert name.startswith(row["prefix"])
    assert len(name) == row["length"] == MAX_INTERFACE_NAME
    check_interface_name(name)
    check_interface_name(row["example"])


@pytest.mark.parametrize("row", rows("names", "url_to_target"))
def test_url_to_target(row: dict[str, Any]) -> None:
    recorded = row["grpc_target"] if row["error"] is None else REFUSED
    compare("names", "url_to_target", row, answer(lambda: Target.parse(row["input"]).grpc), recorded)


@pytest.mark.parametrize("row", rows("names", "target_to_url"))
def test_target_to_url(row: dict[str, Any]) -> None:
    def ours() -> tuple[str, ...]:
        target = Target.from_grpc(row["input"])
        return target.network, target.address, target.url

    compare("names", "target_to_url", row, answer(ours), (row["network"], row["address"], row["url"]))


@pytest.mark.parametrize("row", rows("names", "address_to_url"))
def test_address_to_url(row: dict[str, Any]) -> None:
    assert Target.from_socket(row["network"], row["address"]).url == row["url"]
