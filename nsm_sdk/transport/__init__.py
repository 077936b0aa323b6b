# SPDX-License-Identifier: Apache-2.0
"""Transports: gRPC over Unix sockets and TCP, and calls within one process, behind `Dial` and `Listen`.

Does:  re-exports what recipes, programs and applications need.
Place: above the rooms of elements, below the recipes; the only room that knows gRPC.
State: none.
"""

from __future__ import annotations

from nsm_sdk.transport import _quiet  # noqa: F401  before grpc is imported
from nsm_sdk.transport.dialer import Adapter, Dialer, listen
from nsm_sdk.transport.grpc_server import mount
from nsm_sdk.transport.metadata import PATH_KEY, TokenSource
from nsm_sdk.transport.offers import Exchange, Extra

__all__ = [
    "PATH_KEY",
    "Adapter",
    "Dialer",
    "Exchange",
    "Extra",
    "TokenSource",
    "listen",
    "mount",
]
