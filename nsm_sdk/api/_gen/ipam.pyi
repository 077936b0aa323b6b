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


class Type(IntEnum):
    UNDEFINED = 0
    ALLOCATE = 1
    DELETE = 2

class PrefixRequest(Message):
    type: int
    prefix: str
    @property
    def exclude_prefixes(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, type: int | None = ..., prefix: str | None = ..., exclude_prefixes: Iterable[str] | None = ...) -> None: ...

class PrefixResponse(Message):
    prefix: str
    @property
    def exclude_prefixes(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, prefix: str | None = ..., exclude_prefixes: Iterable[str] | None = ...) -> None: ...
