# SPDX-License-Identifier: Apache-2.0
"""Transports: gRPC over Unix sockets and TCP, and calls within one process, behind `Dial` and `Listen`.

Does:  re-exports what recipes, programs and applications need.
Place: above the rooms of elements, below the recipes; the only room that knows gRPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsm_sdk.transport.dialer import Dialer, listen
from nsm_sdk.transport.metadata import PATH_KEY, TokenSource
from nsm_sdk.transport.offers import Exchange, Extra

if TYPE_CHECKING:
    from grpc.aio import Server

    from nsm_sdk.core import Served

__all__ = [
    "PATH_KEY",
    "Dialer",
    "Exchange",
    "Extra",
    "TokenSource",
    "listen",
    "mount",
]


def mount(server: Server, served: Served, *, extra: Extra | None = None) -> None:
    """Answer the methods of `served` on a `grpc.aio` server that belongs to the application, beside its own.

    Call it before `server.start()`. The application owns the server: its addresses, credentials and health. The role
    must be served meanwhile (`Served(running.bound, running.runtime)`); when it ends, its methods answer UNAVAILABLE.
    """
    # Nothing else needs grpcio, which takes long to import.
    from nsm_sdk.transport import grpc_server

    grpc_server.mount(server, served, extra=extra)
