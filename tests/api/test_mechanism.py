# SPDX-License-Identifier: Apache-2.0
"""Mechanism views: total reading, strict writing, and validation."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import (
    KERNEL,
    LOCAL,
    REMOTE,
    VIEWS,
    VLAN,
    VXLAN,
    WIREGUARD,
    Kernel,
    Mechanism,
    View,
    Vlan,
    Vxlan,
    Wireguard,
    validate,
)
from nsm_sdk.errors import InvalidRequest
from tests.api.tables import REFUSED, answer


def test_a_view_is_the_message_itself() -> None:
    mechanism = Mechanism(cls=LOCAL, type=KERNEL)
    view = Kernel.of(mechanism)
    assert view is not None
    view.interface_name = "nsm-1"
    view.vlan = 7
    assert dict(mechanism.parameters) == {"name": "nsm-1", "vlan": "7"}
    mechanism.parameters["name"] = "nsm-2"
    assert view.interface_name == "nsm-2"
    assert repr(view) == "Kernel({'name': 'nsm-2', 'vlan': '7'})"


def test_a_view_of_another_type_is_none() -> None:
    assert Kernel.of(Mechanism(type="kernel")) is None
    assert Kernel.of(Mechanism(type="MEMIF")) is None
    assert Kernel.of(None) is None
    assert Vxlan.of(Mechanism(type=VXLAN)) is not None


@pytest.mark.parametrize("kind", VIEWS.values())
def test_a_new_mechanism_is_valid_and_reads_as_nothing(kind: type[View]) -> None:
    view = kind.new()
    assert (view.mechanism.cls, view.mechanism.type) == (kind.CLS, kind.TYPE)
    validate(view.mechanism)
    for name, parameter in kind.fields().items():
        assert getattr(view, name) == parameter.absent
    assert not view.mechanism.parameters


@given(st.sampled_from(sorted(VIEWS)), st.data())
def test_reading_never_fails_and_writing_back_keeps_the_value(type: str, data: st.DataObject) -> None:
    kind = VIEWS[type]
    name = data.draw(st.sampled_from(sorted(kind.fields())))
    text = data.draw(
        st.text(max_size=40)
        | st.integers(-5, 2**33).map(str)
        | st.ip_addresses().map(str)
        | st.sampled_from(["9" * 9999])
    )
    view = kind(Mechanism(type=type, parameters={kind.fields()[name].key: text}))
    value = getattr(view, name)
    setattr(view, name, value)
    assert getattr(view, name) == value


@pytest.mark.parametrize(
    ("view", "attribute", "value"),
    [
        (Kernel.new(), "vlan", 4096),
        (Kernel.new(), "vlan", -1),
        (Vlan.new(), "vlan_id", 4096),
        (Vxlan.new(), "vni", 2**24),
        (Vxlan.new(), "src_port", 65536),
        (Vxlan.new(), "mtu", 2**32),
    ],
)
def test_writing_a_number_out_of_range_is_refused(view: Any, attribute: str, value: int) -> None:
    with pytest.raises(InvalidRequest, match=str(value)):
        setattr(view, attribute, value)
    assert not view.mechanism.parameters


def test_vlan_ids_in_the_upper_half_are_read() -> None:
    """Upstream 1.4 read them as signed, hence as 0: untagged."""
    view = Vlan.new()
    view.vlan_id = 4094
    assert view.vlan_id == 4094


def test_writing_none_removes_the_parameter() -> None:
    view = Vxlan.new()
    view.src_ip = ipaddress.ip_address("10.0.0.1")
    view.src_ip = None
    assert view.src_ip is None
    assert not view.mechanism.parameters


def test_addresses_are_read_as_what_they_are() -> None:
    view = Vxlan(Mechanism(parameters={"src_ip": "::ffff:10.0.0.1", "dst_ip": "fe80::1%eth0"}))
    assert view.src_ip == ipaddress.ip_address("10.0.0.1")
    assert view.dst_ip is None


@given(st.ip_addresses(), st.ip_addresses())
def test_the_two_ends_draw_from_different_halves(one: Any, other: Any) -> None:
    there, back = Vxlan.new(), Vxlan.new()
    there.src_ip = back.dst_ip = one
    there.dst_ip = back.src_ip = other
    assert (there.even_vni != back.even_vni) is (there.src_ip != there.dst_ip)


def test_parity_looks_at_the_addresses_before_translation() -> None:
    view = Vxlan.new()
    view.src_ip, view.dst_ip = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2")
    assert view.even_vni
    view.orig_src_ip = ipaddress.ip_address("10.0.0.3")
    assert not view.even_vni
    view.src_ip = view.orig_src_ip = None
    assert view.even_vni
    view.src_ip, view.dst_ip = ipaddress.ip_address("10.0.0.1"), None
    assert not view.even_vni


def test_keys_of_wireguard() -> None:
    view = Wireguard.new()
    view.src_public_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    validate(view.mechanism)
    view.dst_public_key = "c2hvcnQ="
    with pytest.raises(InvalidRequest, match="32 bytes"):
        validate(view.mechanism)


@pytest.mark.parametrize(
    ("cls", "type", "parameters", "complaint"),
    [
        (LOCAL, "", {}, "no type"),
        ("", KERNEL, {}, "class"),
        ("local", KERNEL, {}, "class"),
        (REMOTE, KERNEL, {}, "KERNEL has class REMOTE"),
        (LOCAL, VXLAN, {}, "VXLAN has class LOCAL"),
        ("", "MINE", {}, "class"),
        (LOCAL, KERNEL, {"name": "a-very-long-interface-name"}, "15|bytes"),
        (LOCAL, KERNEL, {"name": "a/b"}, "'/'"),
        (LOCAL, KERNEL, {"inodeURL": "/proc/1/ns/net"}, "inodeURL"),
        (LOCAL, KERNEL, {"vlan": "5000"}, "vlan"),
        (LOCAL, KERNEL, {"vlan": ""}, "vlan"),
        (LOCAL, KERNEL, {"supportsVlan": "yes"}, "supportsVlan"),
        (LOCAL, KERNEL, {"pciAddress": "1:2"}, "pciAddress"),
        (REMOTE, VXLAN, {"src_ip": "10.0.0.1/24"}, "src_ip"),
        (REMOTE, VXLAN, {"vni": "16777216"}, "vni"),
        (REMOTE, VXLAN, {"dst_port": "٣"}, "dst_port"),
        (REMOTE, VLAN, {"vlan-id": "-1"}, "vlan-id"),
        (REMOTE, WIREGUARD, {"src_public_key": "!"}, "32 bytes"),
        (LOCAL, "VFIO", {"iommuGroup": "4294967296"}, "iommuGroup"),
    ],
)
def test_what_is_not_in_order_is_refused(cls: str, type: str, parameters: dict[str, str], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        validate(Mechanism(cls=cls, type=type, parameters=parameters))
    assert caught.value.hint


def test_what_is_in_order_passes() -> None:
    validate(Mechanism(cls=LOCAL, type="MINE", parameters={"vlan": "anything"}))
    parameters = {"name": "", "inodeURL": "inode://4/5", "vlan": "0", "supportsVlan": "T", "unknown": "x"}
    validate(Mechanism(cls=LOCAL, type=KERNEL, parameters=parameters))
    validate(Mechanism(cls=LOCAL, type=KERNEL, parameters={"pciAddress": "0000:01:00.0", "inodeURL": "file:///a"}))
    validate(Mechanism(cls=REMOTE, type=VXLAN, parameters={"src_ip": "fd00::1", "vni": "16777215", "MTU": "1450"}))


KEYS = sorted({parameter.key for view in VIEWS.values() for parameter in view.fields().values()})


@given(
    st.sampled_from(sorted(VIEWS)), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=9), st.text(max_size=9))
)
def test_validation_of_anything_passes_or_refuses(type: str, parameters: dict[str, str]) -> None:
    mechanism = Mechanism(cls=VIEWS[type].CLS, type=type, parameters=parameters)
    assert answer(lambda: validate(mechanism)) in (None, REFUSED)
