# SPDX-License-Identifier: Apache-2.0
"""Our netlink messages against pyroute2's.

Does:  what we encode, pyroute2 reads as meant; what pyroute2 encodes, we read as meant; rubbish raises nothing odd.
Place: codec, requests and answers of nsm_sdk.netlink.
State: none.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from nsm_sdk.mechanisms.model import OURS, Add, Address, Neighbour, Remove, Route, Rule, SetLink
from nsm_sdk.mechanisms.ports import NewEnd
from nsm_sdk.netlink import answers, codec, requests

_v4 = st.ip_addresses(v=4).map(str)
# as the C library writes it: Python writes mapped addresses otherwise
_v6 = st.ip_addresses(v=6).map(lambda ip: socket.inet_ntop(socket.AF_INET6, ip.packed))
_index = st.integers(1, 2**31 - 1)


def decoded(kind: type[Any], packet: bytearray) -> Any:
    message = kind(bytes(packet))
    message.decode()
    return message


def value(message: Any, name: str) -> Any:
    return message.get_attr(name)


@given(_v4 | _v6, _index, st.data())
def test_addresses(ip: str, index: int, data: st.DataObject) -> None:
    one = Address(ip, data.draw(st.integers(0, 128 if ":" in ip else 32)))
    packet = requests.encode(Add(one), index)
    message = decoded(ifaddrmsg, packet)
    assert (message["index"], message["prefixlen"], value(message, "IFA_LOCAL")) == (index, one.prefix, ip)
    assert message["family"] == (10 if ":" in ip else 2)
    assert bool(message["flags"] & 0x02) == (":" in ip)
    assert answers.address(bytes(packet[16:])) == (index, one)
    assert decoded(ifaddrmsg, requests.encode(Remove(one), index))["header"]["type"] == codec.DELADDR


@st.composite
def _routes(draw: st.DrawFn) -> Route:
    six = draw(st.booleans())
    ips = _v6 if six else _v4
    prefix = draw(st.integers(0, 128 if six else 32))
    dst = draw(ips) if prefix else ("::" if six else "0.0.0.0")
    gateway = draw(st.just("") | ips)
    return Route(
        dst=dst,
        prefix=prefix,
        gateway=gateway,
        table=draw(st.integers(1, 2**31 - 1)),
        metric=draw(st.integers(0, 2**31)),
    )


@given(_routes(), _index)
def test_routes(one: Route, index: int) -> None:
    packet = requests.encode(Add(one), index)
    message = decoded(rtmsg, packet)
    assert message["proto"] == OURS
    assert (message["dst_len"], value(message, "RTA_TABLE"), value(message, "RTA_OIF")) == (
        one.prefix,
        one.table,
        index,
    )
    assert (value(message, "RTA_PRIORITY") or 0) == one.metric
    assert (value(message, "RTA_GATEWAY") or "") == one.gateway
    assert (value(message, "RTA_DST") or "") == (one.dst if one.prefix else "")
    assert bool(message["flags"] & 4) == bool(one.gateway)
    assert answers.route(bytes(packet[16:])) == (index, one)


_ports = st.none() | st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda p: (min(p), max(p)))


@st.composite
def _rules(draw: st.DrawFn) -> Rule:
    six = draw(st.booleans())
    src = draw(st.just("") | (_v6 if six else _v4))
    return Rule(
        family=6 if six else 4,
        priority=draw(st.integers(1, 2**31)),
        table=draw(st.integers(1, 2**31 - 1)),
        src=src,
        src_prefix=(128 if six else 32) if src else 0,
        proto=draw(st.integers(0, 255)),
        sport=draw(_ports),
        dport=draw(_ports),
        enters=draw(st.sampled_from(["", "nsm-1", "x" * 15])),
    )


@given(_rules())
def test_rules(one: Rule) -> None:
    packet = requests.encode(Add(one), 0)
    message = decoded(fibmsg, packet)
    assert (value(message, "FRA_TABLE"), value(message, "FRA_PRIORITY")) == (one.table, one.priority)
    assert (value(message, "FRA_SRC") or "", message["src_len"]) == (one.src, one.src_prefix)
    assert (value(message, "FRA_IP_PROTO") or 0, message["action"]) == (one.proto, 1)
    assert (value(message, "FRA_IIFNAME") or "") == one.enters
    assert value(message, "FRA_PROTOCOL") in (OURS, bytes((OURS,)), "78")
    assert answers.rule(bytes(packet[16:])) == (True, one)


@given(_v4 | _v6, st.binary(min_size=6, max_size=6), st.booleans(), _index)
def test_neighbours(ip: str, mac: bytes, permanent: bool, index: int) -> None:
    one = Neighbour(ip, mac.hex(":"), permanent)
    packet = requests.encode(Add(one), index)
    message = decoded(ndmsg, packet)
    assert (message["ifindex"], value(message, "NDA_DST"), value(message, "NDA_LLADDR")) == (index, ip, one.mac)
    assert message["state"] == (0x80 if permanent else 0x02)
    assert answers.neighbour(bytes(packet[16:])) == (index, one)


@given(
    st.none() | st.booleans(),
    st.none() | st.integers(68, 65535),
    st.none() | st.from_regex(r"\A[a-z]{1,15}\Z"),
    st.none() | st.from_regex(r"\A[a-z:~]{1,255}\Z"),
)
def test_links(up: bool | None, mtu: int | None, name: str | None, alias: str | None) -> None:
    packet = requests.encode(SetLink(up=up, mtu=mtu, name=name, alias=alias, mac="02:00:00:00:00:01"), 5)
    message = decoded(ifinfmsg, packet)
    assert (message["change"], message["flags"]) == ((1, int(up)) if up is not None else (0, 0))
    assert (value(message, "IFLA_MTU"), value(message, "IFLA_IFNAME")) == (mtu, name)
    assert (value(message, "IFLA_IFALIAS"), value(message, "IFLA_ADDRESS")) == (alias, "02:00:00:00:00:01")
    link = answers.link(bytes(packet[16:]))
    assert (link.index, link.name, link.alias, link.mtu) == (5, name or "", alias or "", mtu or 0)


def test_a_pair_is_one_message() -> None:
    a = NewEnd(name="a", mac="02:00:00:00:00:01", mtu=1400)
    b = NewEnd(name="b", mac="02:00:00:00:00:02")
    message = decoded(ifinfmsg, requests.pair(a, 5, b, 6, 42))
    info = value(message, "IFLA_LINKINFO")
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (message["index"], message["flags"], value(message, "IFLA_MTU")) == (5, 1, 1400)
    assert (info.get_attr("IFLA_INFO_KIND"), value(message, "IFLA_IFNAME")) == ("veth", "a")
    assert (peer["index"], peer["flags"], value(peer, "IFLA_NET_NS_FD")) == (6, 0, 42)
    assert (value(peer, "IFLA_IFNAME"), value(peer, "IFLA_ADDRESS"), value(peer, "IFLA_MTU")) == ("b", b.mac, None)


@pytest.mark.parametrize("read", [answers.link, answers.address, answers.route, answers.rule, answers.neighbour])
@given(data=st.binary(min_size=16, max_size=200))
def test_rubbish_does_no_harm(read: Any, data: bytes) -> None:
    try:
        read(data)
    except (ValueError, struct.error, OSError):
        pass
    else:
        assert True


@given(st.binary(max_size=200))
def test_splitting_rubbish_ends(data: bytes) -> None:
    assert sum(len(body) + 16 for _, _, _, body in codec.split(data)) <= len(data)
