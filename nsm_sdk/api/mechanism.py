# SPDX-License-Identifier: Apache-2.0
"""Mechanisms: their classes, types and parameters, and a typed view of each.

A view shows the parameters of a mechanism as typed attributes and writes them through to the message; it holds
nothing but the message. Reading never fails (`validate` is what refuses); writing raises InvalidRequest for a value
out of range, and None removes the parameter. `Kernel.of(mechanism)` is None for another type.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, overload
from urllib.parse import unquote, urlsplit

from nsm_sdk.api._gen.connection import Mechanism
from nsm_sdk.api.interface import check_interface_name
from nsm_sdk.errors import InvalidRequest

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class HasMechanism(Protocol):
    """What a parameter is read from."""

    @property
    def mechanism(self) -> Mechanism:
        """The message that holds the parameters."""
        ...


class Parameter(Generic[T]):
    """One parameter, stored under `key`, of a view that has a `mechanism`."""

    def __init__(self, key: str, absent: T, check: Callable[[str], None] | None = None) -> None:
        self.key = key
        self.absent = absent
        self._check = check

    @overload
    def __get__(self, view: None, owner: type[Any]) -> Parameter[T]: ...
    @overload
    def __get__(self, view: HasMechanism, owner: type[Any]) -> T: ...
    def __get__(self, view: HasMechanism | None, owner: type[Any]) -> T | Parameter[T]:
        if view is None:
            return self
        # `.get`: subscripting a map of a message would insert the key
        text = view.mechanism.parameters.get(self.key)
        return self.absent if text is None else self.read(text)

    def __set__(self, view: HasMechanism, value: T | None) -> None:
        if value is None:
            view.mechanism.parameters.pop(self.key, None)
        else:
            view.mechanism.parameters[self.key] = self.write(value)

    def read(self, text: str) -> T:
        """The value of a text; `absent` if it has none."""
        raise NotImplementedError

    def write(self, value: T) -> str:
        """The text of a value; InvalidRequest if it has none."""
        return str(value)

    def validate(self, text: str) -> None:
        """Raises InvalidRequest unless the text is in order."""
        if self._check is not None:
            self._check(text)

    def refuse(self, text: str, wanted: str) -> InvalidRequest:
        """The error for a text or value that is not what is wanted."""
        return InvalidRequest(f"mechanism parameter {self.key} is {text[:64]!r}", hint=f"give {wanted}")


class Text(Parameter[str]):
    """A text; empty if absent."""

    def __init__(self, key: str, check: Callable[[str], None] | None = None) -> None:
        super().__init__(key, "", check)

    def read(self, text: str) -> str:
        return text


class Number(Parameter[int]):
    """A decimal number from 0 to `largest`; 0 if absent."""

    def __init__(self, key: str, largest: int) -> None:
        super().__init__(key, 0)
        self.largest = largest

    def read(self, text: str) -> int:
        # The length bounds the work: Python refuses to convert thousands of digits, with a ValueError
        if not (text.isascii() and text.isdigit()) or len(text) > 32:
            return 0
        value = int(text)
        return value if value <= self.largest else 0

    def write(self, value: int) -> str:
        text = str(int(value))
        self.validate(text)
        return text

    def validate(self, text: str) -> None:
        if self.read(text) == 0 and (not text or text.strip("0") or len(text) > 32):
            raise self.refuse(text, f"a decimal number from 0 to {self.largest}")


class Flag(Parameter[bool]):
    """A truth value; false if absent."""

    def __init__(self, key: str) -> None:
        super().__init__(key, False)

    def read(self, text: str) -> bool:
        return text in _TRUE

    def write(self, value: bool) -> str:
        return "true" if value else "false"

    def validate(self, text: str) -> None:
        if text not in _TRUE and text not in _FALSE:
            raise self.refuse(text, "true or false")


class Address(Parameter[IPAddress | None]):
    """An IP address without mask; None if absent. An IPv4 address in IPv6 notation is read as IPv4."""

    def __init__(self, key: str) -> None:
        super().__init__(key, None)

    def read(self, text: str) -> IPAddress | None:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                return None
            return address.ipv4_mapped or address
        return address

    def validate(self, text: str) -> None:
        if self.read(text) is None:
            raise self.refuse(text, "an IP address without mask")


class Lines(Parameter[Sequence[str] | None]):
    """Several texts joined by ";"; None if absent."""

    def __init__(self, key: str) -> None:
        super().__init__(key, None)

    def read(self, text: str) -> Sequence[str] | None:
        return text.split(";")

    def write(self, value: Sequence[str] | None) -> str:
        return ";".join(value or ())


def matching(key: str, pattern: str, wanted: str) -> Callable[[str], None]:
    """A check for texts that may be empty or must match the whole pattern."""
    compiled = re.compile(pattern)

    def check(text: str) -> None:
        if text and compiled.fullmatch(text) is None:
            raise InvalidRequest(f"mechanism parameter {key} is {text[:64]!r}", hint=f"give {wanted}")

    return check


LOCAL: Final = "LOCAL"
REMOTE: Final = "REMOTE"

IPSEC: Final = "IPSEC"
KERNEL: Final = "KERNEL"
MEMIF: Final = "MEMIF"
NOOP: Final = "NOOP"
SRV6: Final = "SRV6"
VFIO: Final = "VFIO"
VLAN: Final = "VLAN"
VXLAN: Final = "VXLAN"
WIREGUARD: Final = "WIREGUARD"

IP: Final = "IP"
"""Payload: IP packets."""
ETHERNET: Final = "ETHERNET"
"""Payload: Ethernet frames."""

DEFAULT_NETNS_URL: Final = "file:///proc/thread-self/ns/net"
"""What the stock client and endpoint give as their namespace. Means something only within one process."""

MAX_MTU: Final = 2**32 - 1
MAX_VLAN: Final = 2**12 - 1
MAX_VNI: Final = 2**24 - 1
_PORT = 2**16 - 1
_NUMBER = 2**32 - 1

_pci = matching("pciAddress", r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]", "one like 0000:01:00.0")
_url = matching("inodeURL", r"(file|inode)://[^\s\x00]+", "one like file:///run/netns/NAME or inode://DEV/INO")


def _name(text: str) -> None:
    if text:
        check_interface_name(text)


def _wireguard_key(text: str) -> None:
    try:
        length = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        length = -1
    if text and length != 32:
        raise InvalidRequest("a WireGuard public key is not 32 bytes in base64", hint="give what `wg pubkey` prints")


class View:
    """Base of the typed views. `mechanism` is the message itself: what is written to the view is written there."""

    __slots__ = ("mechanism",)

    TYPE: ClassVar[str] = ""
    """The mechanism type this view is for."""
    CLS: ClassVar[str] = ""
    """The class such a mechanism has."""

    def __init__(self, mechanism: Mechanism) -> None:
        self.mechanism = mechanism

    @classmethod
    def of(cls, mechanism: Mechanism | None) -> Self | None:
        """The view of a mechanism of this type; None for None and for other types. The class is not looked at."""
        return cls(mechanism) if mechanism is not None and mechanism.type == cls.TYPE else None

    @classmethod
    def new(cls) -> Self:
        """A view of a new mechanism without parameters."""
        return cls(Mechanism(cls=cls.CLS, type=cls.TYPE))

    @classmethod
    def fields(cls) -> dict[str, Parameter[object]]:
        """Attribute name -> parameter, of all that this mechanism has."""
        return {
            name: value
            for kind in reversed(cls.__mro__)
            for name, value in vars(kind).items()
            if isinstance(value, Parameter)
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(sorted(self.mechanism.parameters.items()))})"


class Kernel(View):
    """A Linux interface in the peer's network namespace."""

    __slots__ = ()
    TYPE = KERNEL
    CLS = LOCAL

    interface_name = Text("name", _name)
    netns_url = Text("inodeURL", _url)
    pci_address = Text("pciAddress", _pci)
    token_id = Text("tokenID")
    supports_vlan = Flag("supportsVlan")
    vlan = Number("vlan", MAX_VLAN)
    route_local_net = Flag("routeLocalNet")
    iptables_rules = Lines("IPTables4NatTemplate")


class Memif(View):
    """A shared-memory interface. The socket's URL and the namespace's share one parameter."""

    __slots__ = ()
    TYPE = MEMIF
    CLS = LOCAL

    netns_url = Text("inodeURL", _url)
    socket_file_url = Text("inodeURL", _url)
    socket_filename = Text("socketfile")


class Vfio(View):
    """A PCI function handed to the peer."""

    __slots__ = ()
    TYPE = VFIO
    CLS = LOCAL

    cgroup_dir = Text("cgroupDir")
    iommu_group = Number("iommuGroup", _NUMBER)
    pci_address = Text("pciAddress", _pci)
    token_id = Text("tokenID")
    vfio_major = Number("vfioMajor", _NUMBER)
    vfio_minor = Number("vfioMinor", _NUMBER)
    device_major = Number("deviceMajor", _NUMBER)
    device_minor = Number("deviceMinor", _NUMBER)


class Tunnel(View):
    """What the tunnels between two hosts have in common."""

    __slots__ = ()
    CLS = REMOTE

    src_ip = Address("src_ip")
    dst_ip = Address("dst_ip")
    orig_src_ip = Address("orig_src_ip")
    orig_dst_ip = Address("orig_dst_ip")
    src_port = Number("src_port", _PORT)
    dst_port = Number("dst_port", _PORT)
    mtu = Number("MTU", MAX_MTU)


class Vxlan(Tunnel):
    """A VXLAN tunnel."""

    __slots__ = ()
    TYPE = VXLAN

    vni = Number("vni", MAX_VNI)

    @property
    def even_vni(self) -> bool:
        """Whether the VNI must be even: the two ends of a pair of hosts draw from different halves.

        Even if the source is not above the destination, compared as 16-byte addresses as they were before any
        translation; even without source, odd without destination.
        """
        source, destination = self.orig_src_ip or self.src_ip, self.orig_dst_ip or self.dst_ip
        if source is None:
            return True
        return destination is not None and _sixteen(source) <= _sixteen(destination)


class Wireguard(Tunnel):
    """A WireGuard tunnel."""

    __slots__ = ()
    TYPE = WIREGUARD

    src_public_key = Text("src_public_key", _wireguard_key)
    dst_public_key = Text("dst_public_key", _wireguard_key)


class Ipsec(Tunnel):
    """An IPsec tunnel; the keys are certificates in base64."""

    __slots__ = ()
    TYPE = IPSEC

    src_public_key = Text("src_public_key")
    dst_public_key = Text("dst_public_key")


class Vlan(View):
    """A VLAN of the host's network; id 0 is the network itself, untagged."""

    __slots__ = ()
    TYPE = VLAN
    CLS = REMOTE

    vlan_id = Number("vlan-id", MAX_VLAN)


class Srv6(View):
    """A segment-routing tunnel."""

    __slots__ = ()
    TYPE = SRV6
    CLS = REMOTE

    src_host_ip = Address("src_host_ip")
    dst_host_ip = Address("dst_host_ip")
    src_bsid = Address("src_bsid")
    dst_bsid = Address("dst_bsid")
    src_localsid = Address("src_localsid")
    dst_localsid = Address("dst_localsid")
    src_host_localsid = Address("src_host_localsid")
    dst_host_localsid = Address("dst_host_localsid")
    src_hw_addr = Text("src_hw_addr")
    dst_hw_addr = Text("dst_hw_addr")


VIEWS: Mapping[str, type[View]] = {
    view.TYPE: view for view in (Ipsec, Kernel, Memif, Srv6, Vfio, Vlan, Vxlan, Wireguard)
}
"""Mechanism type -> its view."""


def validate(mechanism: Mechanism) -> None:
    """Raises InvalidRequest unless class, type and every known parameter of the mechanism are in order.

    A type that is not known here is somebody's own: only its class is checked. Parameters may be absent; unknown ones
    are let through.
    """
    if not mechanism.type:
        raise InvalidRequest("a mechanism has no type", hint=f"give one, for example {KERNEL}")
    if mechanism.cls not in (LOCAL, REMOTE):
        raise InvalidRequest(
            f"mechanism {mechanism.type[:64]!r} has class {mechanism.cls[:64]!r}", hint=f"give {LOCAL} or {REMOTE}"
        )
    view = VIEWS.get(mechanism.type)
    if view is None:
        return
    if mechanism.cls != view.CLS:
        raise InvalidRequest(f"mechanism {view.TYPE} has class {mechanism.cls}", hint=f"{view.TYPE} is {view.CLS}")
    for parameter in view.fields().values():
        text = mechanism.parameters.get(parameter.key)
        if text is not None:
            parameter.validate(text)


def _sixteen(address: IPAddress) -> bytes:
    if isinstance(address, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def namespace_identity(url: str) -> tuple[int, int] | None:
    """Device and inode of the namespace at a `file://` URL or path, without opening it; None where there is none."""
    with suppress(OSError, ValueError):
        path = unquote(urlsplit(url).path) if "://" in url else url
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None
