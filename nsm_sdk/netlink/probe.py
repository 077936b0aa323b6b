# SPDX-License-Identifier: Apache-2.0
"""What can this machine build? Tried out, not guessed.

Does:  makes one interface of each kind, a nftables table, a policy rule, echo sockets, in a namespace that is thrown
       away, and tells for each whether it works and why not.
Place: `nsm doctor`; the forwarder, which advertises only mechanisms that can be built. Takes some 0.3 s in a thread.
State: none; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nsm_sdk.errors import NsmError
from nsm_sdk.mechanisms.model import Add, Rule
from nsm_sdk.netlink import requests
from nsm_sdk.netlink.namespaces import create_namespace, delete_namespace, run_inside
from nsm_sdk.netlink.sockets import NetlinkSocket

if TYPE_CHECKING:
    from pyroute2 import IPRoute, NetlinkError

LINK_KINDS = ("veth", "bridge", "vxlan", "macvlan", "tun", "wireguard", "vlan", "ipvlan", "dummy", "vrf")
_TUNSETIFF = 0x400454CA
_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "veth": {"peer": "nsm-peer"},
    "vxlan": {"vxlan_id": 42},
    "vlan": {"vlan_id": 7},
    "vrf": {"vrf_table": 1042},
    "macvlan": {"macvlan_mode": "bridge"},
}
_MISSING = "this kernel has no {}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that a machine can do or cannot; `reason` says why not."""

    name: str
    works: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """All that was tried, in order."""

    found: tuple[Capability, ...]

    def __getitem__(self, name: str) -> Capability:
        unknown = Capability(name=name, works=False, reason="not tried")
        return next((one for one in self.found if one.name == name), unknown)

    def works(self, name: str) -> bool:
        """Whether this machine has it; false for a name that is not known."""
        return self[name].works

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The types of mechanism that can be built here, in order of preference."""
        return ("KERNEL",) if self.works("namespaces") and self.works("veth") else ()


async def probe() -> Capabilities:
    """Tries everything, off the event loop."""
    return await asyncio.to_thread(probe_now)


def probe_now() -> Capabilities:
    """Tries everything; blocks for the fraction of a second."""
    found: list[Capability] = []
    try:
        name = create_namespace(prefix="nsm-probe")
    except NsmError as error:
        found.append(Capability(name="namespaces", works=False, reason=f"{error.message}; {error.hint}"))
        reason = "network namespaces cannot be made"
        found += [Capability(name=kind, works=False, reason=reason) for kind in (*LINK_KINDS, "nftables", "policy")]
        found.append(_try("icmp", _raw_icmp))
        found.append(_try("ping-group", _ping))
        found.append(_try("ipv6", _ipv6))
        return Capabilities(found=tuple(found))
    try:
        found.append(Capability(name="namespaces", works=True))
        found += run_inside(name, _inside)
    finally:
        delete_namespace(name)
    found.append(_try("ping-group", _ping))
    return Capabilities(found=tuple(found))


def _inside() -> list[Capability]:
    # pyroute2 takes a fifth of a second to import, and only those who probe need it
    from pyroute2 import IPRoute

    with IPRoute() as ip, contextlib.closing(NetlinkSocket()) as channel:
        found = [_try(kind, _tun if kind == "tun" else partial(_link, ip, kind)) for kind in LINK_KINDS]
        found.append(_try("nftables", _nftables))
        found.append(_try("policy", lambda: _policy(channel)))
        found.append(_try("icmp", _raw_icmp))
        found.append(_try("ipv6", _ipv6))
        return found


def _try(name: str, attempt: Callable[[], None]) -> Capability:
    try:
        attempt()
    except OSError as error:
        return Capability(name=name, works=False, reason=why_not(name, error))
    return Capability(name=name, works=True)


def why_not(name: str, error: OSError) -> str:
    """What an error of the kernel means for the capability that was tried."""
    if error.errno == errno.ENOENT and error.filename:
        # a container without that device; the kernel may well have it
        return f"there is no {error.filename}"
    if error.errno in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOENT, errno.ENODEV):
        known = {"nftables": "nftables", "policy": "policy routing", "ipv6": "IPv6"}
        return _MISSING.format(known.get(name, f"interfaces of kind {name}"))
    if error.errno in (errno.EPERM, errno.EACCES):
        return {
            "ping-group": "this user's group is outside net.ipv4.ping_group_range",
            "icmp": "raw sockets need root or CAP_NET_RAW",
        }.get(name, "this needs root or CAP_NET_ADMIN")
    return error.strerror or str(error)


def _check(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _tun() -> None:
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", b"nsm-tun", 0x1001))
    finally:
        os.close(handle)


def _link(ip: IPRoute, kind: str) -> None:
    """Makes and deletes one interface; those that need a lower one get an end of a pair."""
    from pyroute2 import NetlinkError

    settings = dict(_SETTINGS.get(kind, {}))
    try:
        if kind in ("macvlan", "vlan", "ipvlan"):
            ip.link("add", ifname="nsm-lower", kind="veth", peer="nsm-peer")
            settings["link"] = ip.link_lookup(ifname="nsm-lower")[0]
        ip.link("add", ifname="nsm-try", kind=kind, **settings)
    except NetlinkError as error:
        raise _os_error(error) from error
    finally:
        for name in ("nsm-try", "nsm-lower"):
            for index in ip.link_lookup(ifname=name):
                ip.link("del", index=index)


def _nftables() -> None:
    """One table, thrown away with its namespace."""
    from pyroute2 import NetlinkError
    from pyroute2.nftables.main import NFTables

    try:
        with NFTables() as nft:
            nft.begin()
            nft.table("add", name="nsmprobe")
            nft.commit()
    except NetlinkError as error:
        raise _os_error(error) from error


def _os_error(error: NetlinkError) -> OSError:
    return OSError(error.code, os.strerror(error.code))


def _policy(channel: NetlinkSocket) -> None:
    rules = [
        Rule(family=family, priority=10_000, table=0x40000001, src=src, src_prefix=bits, proto=6, dport=(80, 90))
        for family, src, bits in ((4, "192.0.2.1", 32), (6, "2001:db8::1", 128))
    ]
    _check(max(channel.send([requests.encode(Add(rule), 0) for rule in rules])))


def _raw_icmp() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP).close()


def _ping() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP).close()


def _ipv6() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.bind(("::1", 0))
