# SPDX-License-Identifier: Apache-2.0
"""The recorded table `mechanisms`, row by row."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google.protobuf import json_format

from nsm_sdk import api
from nsm_sdk.api import (
    Connection,
    ExtraPrefixRequest,
    Ipsec,
    Kernel,
    Mechanism,
    Memif,
    Message,
    Request,
    Selector,
    Vfio,
    View,
    Vlan,
    Vxlan,
    Wireguard,
    check_extra_prefix_request,
    complete_kernel,
    keys,
    matches,
    port_range,
    prefer_kernel,
)
from nsm_sdk.mechanisms import iptables_rules
from tests.api.tables import REFUSED, answer, compare, message
from tests.fixtures import rows

WIRE_NAMES: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in vars(api).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
}

VIEWS: dict[str, type[View]] = {
    "kernel": Kernel,
    "memif": Memif,
    "vfio": Vfio,
    "vlan": Vlan,
    "vxlan": Vxlan,
    "wireguard": Wireguard,
    "ipsec": Ipsec,
}
OUR_NAMES = {"iptables_4_nat_template": "iptables_rules", "net_ns_url": "netns_url"}

# Setter of the recorded calls -> attribute of our view
SETTERS = {
    "SetCgroupDir": "cgroup_dir",
    "SetDeviceMajor": "device_major",
    "SetDeviceMinor": "device_minor",
    "SetDeviceTokenID": "token_id",
    "SetDstIP": "dst_ip",
    "SetDstPort": "dst_port",
    "SetDstPublicKey": "dst_public_key",
    "SetInterfaceName": "interface_name",
    "SetIommuGroup": "iommu_group",
    "SetMTU": "mtu",
    "SetNetNSURL": "netns_url",
    "SetPCIAddress": "pci_address",
    "SetRouteLocalNet": "route_local_net",
    "SetSocketFileURL": "socket_file_url",
    "SetSocketFilename": "socket_filename",
    "SetSrcIP": "src_ip",
    "SetSrcPort": "src_port",
    "SetSrcPublicKey": "src_public_key",
    "SetSupportsVLAN": "supports_vlan",
    "SetVLAN": "vlan",
    "SetVNI": "vni",
    "SetVfioMajor": "vfio_major",
    "SetVfioMinor": "vfio_minor",
    "SetVlanID": "vlan_id",
}
RULES: dict[str, list[str]] = {"two rules": ["-N NSM", "-A NSM -j {{ .SrcAddr }}"], "no rules": []}


def apply(view: Any, call: str) -> None:
    """Does to our view what the recorded call did to upstream's."""
    setter, _, argument = call.partition(" ")
    if setter == "New":
        setter = "SetNetNSURL"
    if setter == "SetIPTables4NatTemplate":
        view.iptables_rules = RULES[argument]
        return
    attribute = SETTERS[setter]
    parameter = type(view).fields()[attribute]
    setattr(view, attribute, None if argument == "nil" else parameter.read(argument))


@pytest.mark.parametrize("row", rows("mechanisms", "write"))
def test_write(row: dict[str, Any]) -> None:
    view = VIEWS[row["mechanism"]["type"].lower()].new()
    for call in row["calls"].split(", "):
        apply(view, call)
    written = view.mechanism
    compare("mechanisms", "write", row, written, message(Mechanism, row["mechanism"]))
    compare("mechanisms", "write", row, written.SerializeToString(deterministic=True), base64.b64decode(row["bytes"]))


@pytest.mark.parametrize("row", rows("mechanisms", "read"))
def test_read(row: dict[str, Any]) -> None:
    kind = VIEWS[row["wrapper"]]
    mechanism = Mechanism(type=kind.TYPE, parameters=row["parameters"] or {})
    before = mechanism.SerializeToString(deterministic=True)
    view = kind.of(mechanism)
    assert view is not None
    values = {name: getattr(view, OUR_NAMES.get(name, name)) for name in row["values"]}
    values = {name: str(value or "<nil>") if name.endswith("_ip") else value for name, value in values.items()}
    compare("mechanisms", "read", row, values, row["values"])
    assert mechanism.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("row", rows("mechanisms", "kernel_client"))
def test_kernel_client(row: dict[str, Any]) -> None:
    request = message(Request, row["input"])

    def ours() -> Request:
        prefer_kernel(request, name=lambda service: f"gen-{service}")
        prefer_kernel(request, name=lambda service: f"other-{service}")
        return request

    compare("mechanisms", "kernel_client", row, answer(ours), message(Request, row["request_after"]))


@pytest.mark.parametrize("row", rows("mechanisms", "kernel_server"))
def test_kernel_server(row: dict[str, Any]) -> None:
    conn = message(Connection, row["input"]["connection"])
    complete_kernel(conn, name=lambda service: f"gen-{service}")
    compare("mechanisms", "kernel_server", row, conn, message(Connection, row["output"]))


@pytest.mark.parametrize("row", rows("mechanisms", "iptables_template"))
def test_iptables_template(row: dict[str, Any]) -> None:
    conn = message(Connection, row["connection"])
    view = Kernel(conn.mechanism)
    view.iptables_rules = row["rules"]
    assert conn.mechanism.parameters["IPTables4NatTemplate"] == row["parameter"]
    recorded = REFUSED if row["error"] else row["output"]
    compare("mechanisms", "iptables_template", row, answer(lambda: iptables_rules(conn)), recorded)


@pytest.mark.parametrize("row", rows("mechanisms", "extra_prefix_request_valid"))
def test_extra_prefix_request(row: dict[str, Any]) -> None:
    asked = None if row["input"] is None else message(ExtraPrefixRequest, row["input"])
    recorded = REFUSED if row["error"] else None
    ours = answer(lambda: check_extra_prefix_request(asked))
    compare("mechanisms", "extra_prefix_request_valid", row, ours, recorded)


@pytest.mark.parametrize("row", rows("mechanisms", "port_range"))
def test_port_range(row: dict[str, Any]) -> None:
    recorded = REFUSED if row["error"] else (row["output"]["start"], row["output"]["end"])
    compare("mechanisms", "port_range", row, answer(lambda: port_range(row["input"])), recorded)


@pytest.mark.parametrize("row", rows("mechanisms", "monitor_selector"))
def test_monitor_selector(row: dict[str, Any]) -> None:
    selector, conn = message(Selector, row["selector"]), message(Connection, row["connection"])
    assert matches(selector, conn) is row["result"]
    pair = keys(selector)
    if pair is not None and row["result"]:
        assert pair in [(hop.name, hop.id) for hop in conn.path.path_segments]


@pytest.mark.parametrize("row", rows("mechanisms", "message"))
def test_message(row: dict[str, Any]) -> None:
    data = base64.b64decode(row["bytes"])
    kind = WIRE_NAMES[row["type"]]
    decoded = kind.FromString(data)
    assert decoded.SerializeToString(deterministic=True) == data
    assert decoded == message(kind, row["json"])
    assert json_format.MessageToDict(decoded) == row["json"]
