# SPDX-License-Identifier: Apache-2.0
"""Two hops joined in one process.

Does:  `loopback` serves one chain and sends what leaves another chain there. Messages are serialised on the way, so
       that a message kept and changed later on one side does not change the other, as it would not between programs.
Place: tests of pairs: client and server halves, errors and deadlines that cross a hop.
State: two roles that are served while it is open.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Bound, Call, Chain, Clock, Element, Layer, Next, Observer, Role, Running
from nsm_sdk.elements import Connect
from nsm_sdk.testing.rig import Rig, rig, with_begin
from nsm_sdk.testing.virtual import current_clock
from nsm_sdk.transport import Dialer, listen

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loopback:
    """Two hops that are served."""

    client: Rig
    """Send requests here."""
    server: Running
    url: str
    """Where the server listens."""
    dial: Dialer
    """Reaches the server's other families as well."""

    def peer(self) -> Bound:
        """What the server offers, as the client sees it."""
        return self.dial(self.url)


class Onward(Element):
    """Sets the next hop of every call."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.url = self.url
        return await next.request(call, request)


@asynccontextmanager
async def loopback(
    server: Role | Layer[Next],
    client: Layer[Next] | None = None,
    *,
    url: str = "",
    clock: Clock | None = None,
    observe: Observer | None = None,
    check: bool = True,
) -> AsyncGenerator[Loopback, None]:
    """Serve `server` and run `client` (default: nothing but `Connect`), whose requests go on to it.

    `server` is a role, or a chain or element for one, with a `Begin` where it needs it; `client` has no `Connect` of
    its own, one is put below it. By default both are joined in memory; with `url` (`unix:///path`, `tcp://127.0.0.1:0`)
    over gRPC, which virtual time refuses. `observe` sees the elements of both.
    """
    role = server if isinstance(server, Role) else Role("server", connection=with_begin(server))
    clock = clock or current_clock()
    dial = Dialer()
    where = url or f"inproc://loopback-{next(_numbers)}"
    async with role.serving(listen=[listen(where)], clock=clock, observe=observe) as running:
        elements = [client] if client is not None else []
        onward: Chain[Next] = Chain("onward", Onward(running.urls[0]), Connect(dial))
        async with rig(*elements, onward, clock=clock, observe=observe, check=check) as near:
            yield Loopback(client=near, server=running, url=running.urls[0], dial=dial)
