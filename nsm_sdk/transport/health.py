# SPDX-License-Identifier: Apache-2.0
"""The gRPC health service.

Does:  says SERVING for "" and for each service while a role takes calls, NOT_SERVING from the moment it begins to stop.
Place: every gRPC address that we listen on.
State: the servicer's table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from nsm_sdk.core import Runtime


class Health:
    """Health of one server."""

    def __init__(self, server: grpc.aio.Server, services: Iterable[str], runtime: Runtime) -> None:
        self._servicer: Any = health.aio.HealthServicer()
        self._services = sorted({"", *services})
        self._runtime = runtime
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        runtime.at_drain(self._stopping)

    async def ready(self) -> None:
        """Ready from now on."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Not ready any more."""
        await self._servicer.enter_graceful_shutdown()

    def _stopping(self) -> None:
        self._runtime.spawn(self.stop, "health")


SERVING = health_pb2.HealthCheckResponse.SERVING
CHECK = "/grpc.health.v1.Health/Check"


def question(service: str) -> bytes:
    """A health check request."""
    raw: bytes = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    return raw


def is_serving(raw: bytes) -> bool:
    """Whether the answer to a health check is SERVING."""
    return bool(health_pb2.HealthCheckResponse.FromString(raw).status == SERVING)
