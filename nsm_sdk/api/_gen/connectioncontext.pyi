# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, ClassVar

from google.protobuf.internal.containers import (
    MessageMap,
    RepeatedCompositeFieldContainer,
    RepeatedScalarFieldContainer,
    ScalarMap,
)
from google.protobuf.internal.well_known_types import Timestamp as TimestampMethods
from google.protobuf.message import Message


class IpNeighbor(Message):
    ip: str
    hardware_address: str
    def __init__(self, *, ip: str | None = ..., hardware_address: str | None = ...) -> None: ...

class Route(Message):
    prefix: str
    nextHop: str
    def __init__(self, *, prefix: str | None = ..., nextHop: str | None = ...) -> None: ...

class IpFamily(Message):
    IPV4: ClassVar[int]
    IPV6: ClassVar[int]
    family: int
    def __init__(self, *, family: int | None = ...) -> None: ...

class ExtraPrefixRequest(Message):
    @property
    def addr_family(self) -> IpFamily: ...
    prefix_len: int
    required_number: int
    requested_number: int
    def __init__(self, *, addr_family: IpFamily | None = ..., prefix_len: int | None = ..., required_number: int | None = ..., requested_number: int | None = ...) -> None: ...

class PolicyRoute(Message):
    proto: str
    dst_port: str
    src_port: str
    @property
    def routes(self) -> RepeatedCompositeFieldContainer[Route]: ...
    def __init__(self, *, proto: str | None = ..., dst_port: str | None = ..., src_port: str | None = ..., routes: Iterable[Route] | None = ..., **kwargs: Any) -> None: ...

class IPContext(Message):
    @property
    def src_ip_addrs(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def dst_ip_addrs(self) -> RepeatedScalarFieldContainer[str]: ...
    src_ip_required: bool
    dst_ip_required: bool
    @property
    def src_routes(self) -> RepeatedCompositeFieldContainer[Route]: ...
    @property
    def dst_routes(self) -> RepeatedCompositeFieldContainer[Route]: ...
    @property
    def excluded_prefixes(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def ip_neighbors(self) -> RepeatedCompositeFieldContainer[IpNeighbor]: ...
    @property
    def extra_prefix_request(self) -> RepeatedCompositeFieldContainer[ExtraPrefixRequest]: ...
    @property
    def extra_prefixes(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def policies(self) -> RepeatedCompositeFieldContainer[PolicyRoute]: ...
    def __init__(self, *, src_ip_addrs: Iterable[str] | None = ..., dst_ip_addrs: Iterable[str] | None = ..., src_ip_required: bool | None = ..., dst_ip_required: bool | None = ..., src_routes: Iterable[Route] | None = ..., dst_routes: Iterable[Route] | None = ..., excluded_prefixes: Iterable[str] | None = ..., ip_neighbors: Iterable[IpNeighbor] | None = ..., extra_prefix_request: Iterable[ExtraPrefixRequest] | None = ..., extra_prefixes: Iterable[str] | None = ..., policies: Iterable[PolicyRoute] | None = ...) -> None: ...

class DNSConfig(Message):
    @property
    def dns_server_ips(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def search_domains(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, dns_server_ips: Iterable[str] | None = ..., search_domains: Iterable[str] | None = ...) -> None: ...

class DNSContext(Message):
    @property
    def configs(self) -> RepeatedCompositeFieldContainer[DNSConfig]: ...
    def __init__(self, *, configs: Iterable[DNSConfig] | None = ...) -> None: ...

class EthernetContext(Message):
    src_mac: str
    dst_mac: str
    vlan_tag: int
    def __init__(self, *, src_mac: str | None = ..., dst_mac: str | None = ..., vlan_tag: int | None = ...) -> None: ...

class ConnectionContext(Message):
    @property
    def ip_context(self) -> IPContext: ...
    @property
    def dns_context(self) -> DNSContext: ...
    @property
    def ethernet_context(self) -> EthernetContext: ...
    @property
    def extra_context(self) -> ScalarMap[str, str]: ...
    MTU: int
    def __init__(self, *, ip_context: IPContext | None = ..., dns_context: DNSContext | None = ..., ethernet_context: EthernetContext | None = ..., extra_context: Mapping[str, str] | None = ..., MTU: int | None = ...) -> None: ...
