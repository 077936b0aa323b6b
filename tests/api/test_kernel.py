# SPDX-License-Identifier: Apache-2.0
"""The kernel mechanism on both sides, and its NAT rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import (
    LOCAL,
    Connection,
    ConnectionContext,
    IPContext,
    Kernel,
    Mechanism,
    Request,
    complete_kernel,
    iptables_rules,
    prefer_kernel,
)
from nsm_sdk.errors import InvalidRequest
from tests.api.tables import REFUSED, answer

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


def connection(template: str) -> Connection:
    """A kernel connection with the rules and two addresses on the client's side."""
    context = ConnectionContext(ip_context=IPContext(src_ip_addrs=["10.0.0.1/32", "fd00::1/128"]))
    parameters = {"name": "nsm-1", "IPTables4NatTemplate": template}
    return Connection(context=context, mechanism=Mechanism(type="KERNEL", parameters=parameters))


@pytest.mark.parametrize(
    ("template", "rules"),
    [
        ("-i {{ .NsmInterfaceName }};-N X", ["-i nsm-1", "-N X"]),
        ("{{.NsmInterfaceName}}", ["nsm-1"]),
        ("{{ index .NsmSrcIPs 0 }} {{index  .NsmSrcIPs  1}}", ["10.0.0.1 fd00::1"]),
        ("a {{- .NsmInterfaceName -}} b", ["ansm-1b"]),
        ("a {{- .NsmInterfaceName }} b", ["ansm-1 b"]),
        ("{{ .NsmSrcIPs }}{{ .NsmDstIPs }}", ["[10.0.0.1 fd00::1][]"]),
        ("", [""]),
    ],
)
def test_rules_are_rendered(template: str, rules: list[str]) -> None:
    assert iptables_rules(connection(template)) == rules


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Unknown }}",
        "{{ index .NsmDstIPs 0 }}",
        "{{ index .NsmInterfaceName 0 }}",
        "{{ index .Unknown 0 }}",
        "{{ range .NsmSrcIPs }}x{{ end }}",
        "{{ }}",
        "{{ open",
        "x }} {{",
    ],
)
def test_rules_that_cannot_be_rendered_are_refused(template: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        iptables_rules(connection(template))
    assert caught.value.hint


@pytest.mark.parametrize("conn", [Connection(), Connection(mechanism=Kernel.new().mechanism)])
def test_a_connection_without_rules_is_refused(conn: Connection) -> None:
    with pytest.raises(InvalidRequest, match="no iptables rules"):
        iptables_rules(conn)


@given(st.text("{} .-NsmSrcIP0index;", max_size=40))
def test_any_template_is_rendered_or_refused(template: str) -> None:
    rules = answer(lambda: iptables_rules(connection(template)))
    assert isinstance(rules, list) or rules == REFUSED
    if "{{" not in template:
        assert rules == template.split(";")
