# SPDX-License-Identifier: Apache-2.0
"""The kernel mechanism on both sides."""

from __future__ import annotations

import pytest

from nsm_sdk.api import (
    LOCAL,
    Connection,
    Mechanism,
    Request,
    complete_kernel,
    prefer_kernel,
)
from nsm_sdk.errors import InvalidRequest

NETNS = "file:///run/netns/test"


def test_a_request_asks_for_a_kernel_interface_once() -> None:
    request = Request(connection=Connection(network_service="svc"), mechanism_preferences=[Mechanism(type="MEMIF")])
    prefer_kernel(request, netns_url=NETNS)
    name = request.mechanism_preferences[1].parameters["name"]
    prefer_kernel(request, netns_url=NETNS)
    assert [(it.cls, it.type) for it in request.mechanism_preferences] == [("", "MEMIF"), (LOCAL, "KERNEL")]
    assert dict(request.mechanism_preferences[1].parameters) == {"name": name, "inodeURL": NETNS}
    assert name.startswith("svc-")


def test_a_name_that_linux_refuses_is_refused_before_anything_is_sent() -> None:
    request = Request(mechanism_preferences=[Mechanism(type="KERNEL", parameters={"name": "x" * 16})])
    with pytest.raises(InvalidRequest, match="16 bytes"):
        prefer_kernel(request)
    with pytest.raises(InvalidRequest, match="empty"):
        prefer_kernel(Request(), name=lambda service: service)


def test_only_a_kernel_connection_is_completed() -> None:
    conn, other, none = (
        Connection(network_service="svc", mechanism=mechanism)
        for mechanism in (Mechanism(type="KERNEL"), Mechanism(type="MEMIF"), None)
    )
    for each in (conn, other, none):
        complete_kernel(each, netns_url=NETNS, name=lambda service: f"{service}-1")
    assert dict(conn.mechanism.parameters) == {"name": "svc-1", "inodeURL": NETNS}
    assert not other.mechanism.parameters
    assert not none.HasField("mechanism")
