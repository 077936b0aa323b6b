# SPDX-License-Identifier: Apache-2.0
"""Ways out of a hop, and the places where it listens.

Does:  `Dialer` turns URLs into what peers offer, over one pooled connection per peer; `listen` opens an address.
Place: the only names of this room that recipes and programs need; what carries a URL is decided here.
State: the pool.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar
from weakref import WeakSet

from nsm_sdk.api import Method, Target
from nsm_sdk.core import Bound, Call, Listen, Runtime, Served, Service
from nsm_sdk.transport import inproc
from nsm_sdk.transport.http2 import listener
from nsm_sdk.transport.http2.carrier import SocketCarrier
from nsm_sdk.transport.http2.client import ClientConnection
from nsm_sdk.transport.http2.wire import Connections
from nsm_sdk.transport.inproc import InprocCarrier
from nsm_sdk.transport.metadata import TokenSource
from nsm_sdk.transport.offers import Extra, reach
from nsm_sdk.transport.settings import DIAL_TIMEOUT, GRACE, MAX_MESSAGE, PING_EVERY, ChannelSettings

_Carrier = SocketCarrier | InprocCarrier


def listen(
    url: str,
    *,
    extra: Extra | None = None,
    mode: int = 0o600,
    max_message: int = MAX_MESSAGE,
) -> Listen:
    """A listener for `Role.serving`, at `unix:///path`, `tcp://host:port` (port 0: any) or `inproc://name`.

    `extra` are methods besides the four families; `mode` is that of the socket file; `max_message` in bytes. A
    malformed URL raises `InvalidRequest` here. Opening raises `AlreadyExists` where somebody answers,
    `PermissionDenied`, `InvalidRequest` for what is no address of this machine.
    """
    target = Target.parse(url)

    def opened(served: Served) -> AbstractAsyncContextManager[str]:
        if target.network == "inproc":
            return inproc.listening(served, target.address, extra=extra, max_message=max_message)
        return listener.listening(served, target, extra=extra, mode=mode, max_message=max_message)

    return opened


class Dialer(Service):
    """Calls peers by URL; it is a `core.Dial`. Shared by all elements of a role, or by several roles of one identity.

    `tokens` says who calls, in every call's metadata. A peer that is not there becomes `Unavailable` after
    `dial_timeout` seconds; one that comes back earlier is reached. At most `idle` unused connections stay open.
    """

    shareable: ClassVar[bool] = True

    def __init__(
        self,
        tokens: TokenSource | None = None,
        *,
        dial_timeout: float = DIAL_TIMEOUT,
        ping_every: float = PING_EVERY,
        max_message: int = MAX_MESSAGE,
        idle: int = 64,
    ) -> None:
        self._tokens = tokens
        self._settings = ChannelSettings(dial_timeout=dial_timeout, ping_every=ping_every, max_message=max_message)
        self._idle = idle
        self._pool: OrderedDict[Target, tuple[_Carrier, Bound]] = OrderedDict()
        self._urls: dict[str, Target] = {}
        # Also those that have left the pool while somebody kept a Bound.
        self._carriers: WeakSet[_Carrier] = WeakSet()
        self._connections: Connections[ClientConnection] = Connections()

    def __call__(self, url: str) -> Bound:
        """What the peer at `url` offers; `InvalidRequest` for a malformed URL. The first call connects."""
        return self._peer(url)[1]

    def exchange(
        self, url: str, method: Method[Any, Any], call: Call, requests: AsyncIterable[Any]
    ) -> AsyncGenerator[Any, None]:
        """Any number of messages both ways, for methods outside the four families; whoever reads it closes it.

        `requests` is read in a task of `call.runtime`; where it ends, the stream half-closes.
        """
        return self._peer(url)[0].exchange(method, call, requests)

    async def healthy(self, url: str, call: Call, service: str = "") -> bool:
        """Whether the peer takes calls, by its health service; `NotFound` for a service that it does not have."""
        return await self._peer(url)[0].healthy(call, service)

    async def start(self, runtime: Runtime) -> None:
        self._connections.over = False

    async def release(self) -> None:
        # What a task of the last role dials from here on would never be closed.
        self._connections.over = self._starts == 1
        await super().release()

    async def stop(self) -> None:
        """Close all connections; a dialer that is used again opens new ones."""
        carriers = list(self._carriers)
        self._pool.clear()
        self._urls.clear()
        for carrier in carriers:
            await carrier.close()
        await self._connections.close(GRACE)

    @property
    def connections(self) -> int:
        """How many peers the pool knows."""
        return len(self._pool)

    def _peer(self, url: str) -> tuple[_Carrier, Bound]:
        target = self._urls.get(url)
        if target is None:
            target = Target.parse(url)
            if len(self._urls) > 4 * self._idle:
                self._urls.clear()
            self._urls[url] = target
        found = self._pool.get(target)
        if found is None:
            carrier: _Carrier
            if target.network == "inproc":
                carrier = InprocCarrier(target, self._tokens, self._settings)
            else:
                carrier = SocketCarrier(target, self._tokens, self._settings, self._connections)
            self._carriers.add(carrier)
            found = self._pool[target] = (carrier, reach(carrier))
            self._evict()
        else:
            self._pool.move_to_end(target)
        return found

    def _evict(self) -> None:
        """Let the longest unused connections go. A `Bound` that somebody kept still works: it connects anew."""
        if len(self._pool) <= self._idle:
            return
        for target, (carrier, _) in list(self._pool.items())[:-1]:
            if carrier.active:
                continue
            del self._pool[target]
            carrier.drop()
            if len(self._pool) <= self._idle:
                return
