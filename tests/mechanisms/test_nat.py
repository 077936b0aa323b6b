# SPDX-License-Identifier: Apache-2.0
"""NAT rules of the kernel mechanism."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, ConnectionContext, IPContext, Kernel, Mechanism
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.mechanisms import iptables_rules
from tests.api.tables import REFUSED, answer


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
        ("{{ index .NsmInterfaceName 0 }}", ["110"]),
        ("{{ if .NsmDstIPs }}-d {{ end }}x", ["x"]),
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
