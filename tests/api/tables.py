# SPDX-License-Identifier: Apache-2.0
"""Comparison of an answer of ours with a recorded row.

Does:  equal where the row is not listed as a deviation, different where it is.
Place: table tests of nsm_sdk.api.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf import json_format

from nsm_sdk.api import Message
from nsm_sdk.errors import InvalidRequest
from tests.wire.deviations import DEVIATIONS

M = TypeVar("M", bound=Message)

REFUSED = "refused"


def answer(call: Callable[[], object]) -> object:
    """What the call returns, or REFUSED where it raises InvalidRequest with a hint."""
    try:
        return call()
    except InvalidRequest as error:
        return REFUSED if error.hint else f"refused without a hint: {error}"


def compare(file: str, section: str, row: dict[str, Any], ours: object, recorded: object) -> None:
    """Asserts that our answer is the recorded one, or that it differs where the row is listed as a deviation."""
    reason = DEVIATIONS.get((file, section, row["case"]))
    if reason is None:
        assert ours == recorded
    else:
        assert ours != recorded, f"listed as a deviation ({reason}), but equal"


def message(kind: type[M], value: Any) -> M:
    """The message of a protobuf JSON value; None is the empty one."""
    return json_format.ParseDict(value or {}, kind())
