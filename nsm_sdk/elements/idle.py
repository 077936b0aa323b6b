# SPDX-License-Identifier: Apache-2.0
"""Endpoints that leave when nobody needs them.

Does:  tells once that there has been no connection for a while; from then on requests are refused, so that clients look
       for another endpoint.
Place: below `Begin` in an endpoint.
State: whether a connection counts; the number of connections and the idle timer are the role's.
"""

from __future__ import annotations

from collections.abc import Callable

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next, Runtime, Service, Slot, Timer
from nsm_sdk.errors import Unavailable


class OnIdle(Element):
    """Call `notify` after `timeout` seconds without a connection, counted from when the role is served; 0: never.

    `notify` must only post: set an event, start a task.
    """

    unique = True

    def __init__(self, timeout: float, notify: Callable[[], object]) -> None:
        self.timeout = timeout
        self._counted = Slot[bool]("on idle")
        self._idle = _Idle(timeout, notify)

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if self.timeout > 0 and not self._counted.get(call):
            self._idle.enter()
            self._counted.set(call, True)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if self._counted.pop(call):
            self._idle.leave()
        await next.close(call, conn)


class _Idle(Service):
    """Counts connections of a role that is served."""

    def __init__(self, timeout: float, notify: Callable[[], object]) -> None:
        self._timeout = timeout
        self._notify = notify
        self._runtime: Runtime | None = None
        self._timer: Timer | None = None
        self._count = 0
        self._expired = False

    async def start(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._count, self._expired = 0, False
        self._wait()

    async def stop(self) -> None:
        self._cancel()
        self._runtime = None

    def enter(self) -> None:
        """One connection more. Unavailable once the time is over."""
        if self._expired:
            raise Unavailable(
                "the endpoint was idle for too long and is leaving", hint="ask again; another endpoint may serve it"
            )
        self._count += 1
        self._cancel()

    def leave(self) -> None:
        """One connection less."""
        # A connection of an earlier serving was never counted in this one.
        self._count = max(self._count - 1, 0)
        if not self._count:
            self._wait()

    def _wait(self) -> None:
        self._cancel()
        if self._timeout > 0 and self._runtime is not None and not self._expired:
            self._timer = self._runtime.after(self._timeout, self._fire)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._expired = True
        self._notify()
