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


class Timestamp(TimestampMethods, Message):
    seconds: int
    nanos: int
    def __init__(self, *, seconds: int | None = ..., nanos: int | None = ...) -> None: ...

class Empty(Message):
    def __init__(self) -> None: ...
