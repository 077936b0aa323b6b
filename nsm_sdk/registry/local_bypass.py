# SPDX-License-Identifier: Apache-2.0
"""Endpoints of this node: the registry knows the manager's address, whoever asks here gets the endpoint's own.

Does:  registers an endpoint with the manager's URL in the place of its own, and puts its own back into answers and
       finds. What claims to live here but is not known here (a manager that was restarted) is not shown.
Place: a manager's endpoint registry, right above what leads to the registry.
State: own URL by name, while registered.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from nsm_sdk.api import NetworkServiceEndpoint
from nsm_sdk.core import Call, Cause, Found, Query, RegistryElement, RegistryNext
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.registry.begin import Begin, been_registered
from nsm_sdk.registry.path import TAKEOVER_KEY

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


class LocalBypass(RegistryElement[NetworkServiceEndpoint]):
    """`manager`: the manager's public URL, or a function that tells it once it listens; may be empty.

    InvalidRequest for an endpoint without a good URL.
    """

    needs = (Begin,)

    def __init__(self, manager: str | Callable[[], str]) -> None:
        self.manager = manager
        self._own: dict[str, str] = {}

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        name, url = entry.name, entry.url
        if not _URL.fullmatch(url):
            raise InvalidRequest(
                f"cannot register NSE with passed URL: {url[:200]}",
                hint="an endpoint registers with the address where it listens, for example tcp://10.0.0.1:5001",
            )
        # Before it is known below: whoever finds it there must find its own address here. After a failure Begin
        # unregisters, which must still find it; but not what has been registered before.
        kept = name in self._own or not been_registered(entry)
        if (before := self._own.get(name, url)) != url:
            call.onward[TAKEOVER_KEY] = f"{before} {url}"
        self._own[name] = url
        entry.url = self._manager()
        try:
            registered = await next.register(call, entry)
        except BaseException:
            if not kept:
                self._own.pop(name, None)
            raise
        registered.url = url
        self._own[registered.name] = url
        return registered

    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        # Unknown: it is not ours to remove, another manager may have it by now.
        if entry.name not in self._own:
            return
        name = entry.name
        entry.url = self._manager()
        try:
            await next.unregister(call, entry)
        except BaseException:
            # A caller may try again; what Begin starts by itself happens once.
            if call.cause is not Cause.CALL:
                self._own.pop(name, None)
            raise
        self._own.pop(name, None)

    async def find(
        self, call: Call, query: Query[NetworkServiceEndpoint], next: RegistryNext[NetworkServiceEndpoint]
    ) -> AsyncGenerator[Found[NetworkServiceEndpoint], None]:
        async with aclosing(next.find(call, query)) as stream:
            async for found in stream:
                own = self._own.get(found.entry.name)
                if own is not None and (found.deleted or found.entry.url in ("", self._manager())):
                    found.entry.url = own
                elif not found.deleted and found.entry.url == self._manager():
                    continue
                yield found

    def _manager(self) -> str:
        return self.manager if isinstance(self.manager, str) else self.manager()

    def urls(self) -> dict[str, str]:
        """Own URL of each endpoint that is registered here, by name."""
        return dict(self._own)
