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

from nsm_sdk.api._gen import connection as _connection

class NetworkServiceRequest(Message):
    @property
    def connection(self) -> _connection.Connection: ...
    @property
    def mechanism_preferences(self) -> RepeatedCompositeFieldContainer[_connection.Mechanism]: ...
    def __init__(self, *, connection: _connection.Connection | None = ..., mechanism_preferences: Iterable[_connection.Mechanism] | None = ...) -> None: ...
