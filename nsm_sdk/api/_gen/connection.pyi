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

from nsm_sdk.api._gen import connectioncontext as _connectioncontext
from nsm_sdk.api._gen import wellknown as _wellknown

class State(IntEnum):
    UP = 0
    DOWN = 1
    REFRESH_REQUESTED = 2
    RESELECT_REQUESTED = 3

class ConnectionEventType(IntEnum):
    INITIAL_STATE_TRANSFER = 0
    UPDATE = 1
    DELETE = 2

class Mechanism(Message):
    cls: str
    type: str
    @property
    def parameters(self) -> ScalarMap[str, str]: ...
    def __init__(self, *, cls: str | None = ..., type: str | None = ..., parameters: Mapping[str, str] | None = ...) -> None: ...

class PathSegment(Message):
    name: str
    id: str
    token: str
    @property
    def expires(self) -> _wellknown.Timestamp: ...
    @property
    def metrics(self) -> ScalarMap[str, str]: ...
    def __init__(self, *, name: str | None = ..., id: str | None = ..., token: str | None = ..., expires: _wellknown.Timestamp | None = ..., metrics: Mapping[str, str] | None = ...) -> None: ...

class Path(Message):
    index: int
    @property
    def path_segments(self) -> RepeatedCompositeFieldContainer[PathSegment]: ...
    def __init__(self, *, index: int | None = ..., path_segments: Iterable[PathSegment] | None = ...) -> None: ...

class Connection(Message):
    id: str
    network_service: str
    @property
    def mechanism(self) -> Mechanism: ...
    @property
    def context(self) -> _connectioncontext.ConnectionContext: ...
    @property
    def labels(self) -> ScalarMap[str, str]: ...
    @property
    def path(self) -> Path: ...
    network_service_endpoint_name: str
    payload: str
    state: int
    def __init__(self, *, id: str | None = ..., network_service: str | None = ..., mechanism: Mechanism | None = ..., context: _connectioncontext.ConnectionContext | None = ..., labels: Mapping[str, str] | None = ..., path: Path | None = ..., network_service_endpoint_name: str | None = ..., payload: str | None = ..., state: int | None = ...) -> None: ...

class ConnectionEvent(Message):
    type: int
    @property
    def connections(self) -> MessageMap[str, Connection]: ...
    def __init__(self, *, type: int | None = ..., connections: Mapping[str, Connection] | None = ...) -> None: ...

class MonitorScopeSelector(Message):
    @property
    def path_segments(self) -> RepeatedCompositeFieldContainer[PathSegment]: ...
    @property
    def network_services(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, path_segments: Iterable[PathSegment] | None = ..., network_services: Iterable[str] | None = ...) -> None: ...
