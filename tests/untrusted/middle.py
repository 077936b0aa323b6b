# SPDX-License-Identifier: Apache-2.0
"""One hop of ours in front of a far side that does as it likes.

Does:  serves a hop that goes on to a far side of the test's own making, in process or over gRPC; `ask` and `close` are
       its client. `held` is what the hop holds.
Place: tests of hostile answers.
State: the hop and the far side of one test.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from nsm_sdk.api import Connection, PathSegment, Request
from nsm_sdk.chains import served
from nsm_sdk.core import Bound, Call, Chain, Element, Next, Role, Running, WatchElement
from nsm_sdk.elements import Begin, Connect, Follower, Hub, Watch
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.transport import Dialer, listen
from tests.run import unique


class Goes(Element):
    """Sends everything to one place."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.url = self.url
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        call.url = self.url
        await next.close(call, conn)


@dataclass
class Middle:
    """The hop, and its client."""

    running: Running
    bound: Bound
    client: Running
    hub: Hub
    follower: Follower

    def request(self, id: str = "c-0") -> Request:
        """What the client asks for."""
        conn = Connection(id=id, network_service="svc")
        conn.path.path_segments.append(PathSegment(name="nsc", id=id))
        return Request(connection=conn)

    async def ask(self, request: Request, timeout: float = 3.0) -> Connection:
        """Send it."""
        assert self.bound.connection is not None
        return await self.bound.connection.request(self.client.call(timeout=timeout), request)

    async def close(self, conn: Connection) -> None:
        """Close it."""
        assert self.bound.connection is not None
        await self.bound.connection.close(self.client.call(timeout=3.0), conn)

    def held(self) -> dict[str, object]:
        """What the hop holds of connections."""
        begin = self.running.find(Begin)
        tasks = dict(self.running.runtime.running)
        return {
            what: found
            for what, found in (("records", begin.slots()), ("shown", len(self.hub)), ("tasks", tasks))
            if found
        }


@asynccontextmanager
async def middle(far: str) -> AsyncGenerator[Middle, None]:
    """A hop called "mid" that goes on to the URL `far`."""
    tokens = TokenGenerator(Insecure("mid", "mid"))
    dial = Dialer(tokens, dial_timeout=0.2)
    hub, follower = Hub(), Follower()
    role = Role(
        "mid",
        connection=served("mid", Goes(far), Connect(dial), tokens=tokens, hub=hub, follower=follower),
        monitor=Chain("monitor", Watch(hub)),
        services=[tokens, dial],
    )
    mine = TokenGenerator(Insecure("nsc", "nsc"))
    mine_dial = Dialer(mine, dial_timeout=0.2)
    async with (
        role.serving(listen=[listen(f"inproc://{unique('mid')}")]) as running,
        Role("nsc", services=[mine, mine_dial]).serving() as client,
    ):
        yield Middle(running, mine_dial(running.urls[0]), client, hub, follower)


@asynccontextmanager
async def far_side(
    connection: Element, monitor: WatchElement | None = None, *, over: str = "inproc"
) -> AsyncGenerator[str, None]:
    """A far side that answers with what `connection` and `monitor` make of it; yields its URL."""
    folder = Path(tempfile.mkdtemp(prefix=unique("far")))
    url = f"inproc://{unique('far')}" if over == "inproc" else f"unix://{folder}/far"
    role = Role(
        "far",
        connection=Chain("far", connection),
        monitor=None if monitor is None else Chain("monitor", monitor),
    )
    try:
        async with role.serving(listen=[listen(url)], drain=0.2) as running:
            yield running.urls[0]
    finally:
        shutil.rmtree(folder)
