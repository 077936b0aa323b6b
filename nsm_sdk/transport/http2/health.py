# SPDX-License-Identifier: Apache-2.0
"""The gRPC health service, for connections of our own.

Does:  says SERVING for "" and for each service while a role takes calls, NOT_SERVING from the moment it begins to stop;
       tells those that watch. Answers at once, also while the role takes no calls.
Place: beside the role's own methods, on every address of `listening`.
State: whether it serves, and who watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from nsm_sdk.core import Runtime
from nsm_sdk.errors import NotFound
from nsm_sdk.transport import health

Tell: TypeAlias = Callable[[bytes], None]


class Health:
    """Health of one listener."""

    def __init__(self, services: Iterable[str], runtime: Runtime) -> None:
        self._services = {"", *services}
        self._runtime = runtime
        self._serving = True
        self._watching: dict[Tell, str] = {}
        runtime.at_drain(self.stop)

    def check(self, raw: bytes) -> bytes:
        """Answer a Check; NotFound for a service that nobody offers here."""
        service = health.asked_service(raw)
        if service not in self._services:
            raise NotFound(
                f"unknown service {service[:200]!r}", hop=self._runtime.name, hint="ask for '' or for an NSM service"
            )
        return self._answer(service)

    def watch(self, raw: bytes, tell: Tell) -> None:
        """Tell now and at each change, until `unwatch`."""
        service = health.asked_service(raw)
        self._watching[tell] = service
        tell(self._answer(service))

    def unwatch(self, tell: Tell) -> None:
        """Tell no more."""
        self._watching.pop(tell, None)

    def stop(self) -> None:
        """Not ready any more."""
        if self._serving:
            self._serving = False
            for tell, service in list(self._watching.items()):
                if service in self._services:
                    tell(self._answer(service))

    def _answer(self, service: str) -> bytes:
        serving = health.SERVING if self._serving else health.NOT_SERVING
        return health.answer(serving if service in self._services else health.SERVICE_UNKNOWN)
