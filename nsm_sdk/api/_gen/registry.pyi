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

from nsm_sdk.api._gen import wellknown as _wellknown

class NetworkService(Message):
    name: str
    payload: str
    @property
    def matches(self) -> RepeatedCompositeFieldContainer[Match]: ...
    @property
    def path_ids(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, name: str | None = ..., payload: str | None = ..., matches: Iterable[Match] | None = ..., path_ids: Iterable[str] | None = ...) -> None: ...

class Match(Message):
    @property
    def source_selector(self) -> ScalarMap[str, str]: ...
    @property
    def routes(self) -> RepeatedCompositeFieldContainer[Destination]: ...
    fallthrough: bool
    @property
    def metadata(self) -> Metadata: ...
    def __init__(self, *, source_selector: Mapping[str, str] | None = ..., routes: Iterable[Destination] | None = ..., fallthrough: bool | None = ..., metadata: Metadata | None = ...) -> None: ...

class Metadata(Message):
    @property
    def labels(self) -> ScalarMap[str, str]: ...
    def __init__(self, *, labels: Mapping[str, str] | None = ...) -> None: ...

class Destination(Message):
    @property
    def destination_selector(self) -> ScalarMap[str, str]: ...
    weight: int
    def __init__(self, *, destination_selector: Mapping[str, str] | None = ..., weight: int | None = ...) -> None: ...

class NetworkServiceLabels(Message):
    @property
    def labels(self) -> ScalarMap[str, str]: ...
    def __init__(self, *, labels: Mapping[str, str] | None = ...) -> None: ...

class NetworkServiceEndpoint(Message):
    name: str
    @property
    def network_service_names(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def network_service_labels(self) -> MessageMap[str, NetworkServiceLabels]: ...
    url: str
    @property
    def expiration_time(self) -> _wellknown.Timestamp: ...
    @property
    def initial_registration_time(self) -> _wellknown.Timestamp: ...
    @property
    def path_ids(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, name: str | None = ..., network_service_names: Iterable[str] | None = ..., network_service_labels: Mapping[str, NetworkServiceLabels] | None = ..., url: str | None = ..., expiration_time: _wellknown.Timestamp | None = ..., initial_registration_time: _wellknown.Timestamp | None = ..., path_ids: Iterable[str] | None = ...) -> None: ...

class NetworkServiceQuery(Message):
    @property
    def network_service(self) -> NetworkService: ...
    watch: bool
    def __init__(self, *, network_service: NetworkService | None = ..., watch: bool | None = ...) -> None: ...

class NetworkServiceEndpointQuery(Message):
    @property
    def network_service_endpoint(self) -> NetworkServiceEndpoint: ...
    watch: bool
    def __init__(self, *, network_service_endpoint: NetworkServiceEndpoint | None = ..., watch: bool | None = ...) -> None: ...

class NetworkServiceResponse(Message):
    @property
    def network_service(self) -> NetworkService: ...
    deleted: bool
    def __init__(self, *, network_service: NetworkService | None = ..., deleted: bool | None = ...) -> None: ...

class NetworkServiceEndpointResponse(Message):
    @property
    def network_service_endpoint(self) -> NetworkServiceEndpoint: ...
    deleted: bool
    def __init__(self, *, network_service_endpoint: NetworkServiceEndpoint | None = ..., deleted: bool | None = ...) -> None: ...
