# SPDX-License-Identifier: Apache-2.0
"""nsm_sdk: network service clients and endpoints out of small asynchronous elements.

Does:  re-exports the names that most applications need; everything else is found in its room.
Place: above all rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nsm_sdk import errors

if TYPE_CHECKING:
    from nsm_sdk.api import Connection, Request
    from nsm_sdk.client import Client, OpenConnection
    from nsm_sdk.core import Call, Chain, Element, Next, Slot
    from nsm_sdk.endpoint import Endpoint, OfferedService

__version__ = "0.1.0"

__all__ = [
    "Call",
    "Chain",
    "Client",
    "Connection",
    "Element",
    "Endpoint",
    "Next",
    "OfferedService",
    "OpenConnection",
    "Request",
    "Slot",
    "errors",
]

_HOMES = {
    "Call": "core",
    "Chain": "core",
    "Client": "client",
    "Connection": "api",
    "Element": "core",
    "Endpoint": "endpoint",
    "Next": "core",
    "OfferedService": "endpoint",
    "OpenConnection": "client",
    "Request": "api",
    "Slot": "core",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: every room's import passes here, and most need neither gRPC nor netlink.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
