# SPDX-License-Identifier: Apache-2.0
"""The kernel mechanism, as a client asks for it and as an endpoint answers.

Does:  both sides name the network namespace that is to get the interface, and a name for it that stays the same for the
       life of the connection.
Place: KernelClient above Connect in a client; KernelServer behind `Mechanisms(KERNEL=...)` in an endpoint.
State: the client's interface name in a slot; the server's table of names in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from nsm_sdk.api import Connection, Kernel, Request, complete_kernel, interface_name, prefer_kernel
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import Exhausted

_TRIES = 100


def own_namespace() -> str:
    """This process's network namespace, as another process on the machine can open it."""
    return f"file:///proc/{os.getpid()}/ns/net"


class KernelClient(Element):
    """Ask for a kernel interface.

    `namespace`: URL of the namespace that gets it, default this process's own. `name`: makes a name from a service's
    where the request gives none.
    """

    def __init__(self, *, namespace: str = "", name: Callable[[str], str] = interface_name) -> None:
        self.namespace = namespace
        self._make = name
        self._name = Slot[str]("interface name")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        def name(service: str) -> str:
            # a refresh that brings no name must not rename the interface
            return self._name.get(call) or self._name.set(call, self._make(service))

        prefer_kernel(request, netns_url=self.namespace or own_namespace(), name=name)
        self._name_own(request.connection)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._name.pop(call)
        self._name_own(conn)
        await next.close(call, conn)

    def _name_own(self, conn: Connection) -> None:
        """Managers tell of our namespace by its inode, but wait for its descriptor when they are told so themselves."""
        kernel = Kernel.of(conn.mechanism) if conn.HasField("mechanism") else None
        if kernel is not None and kernel.netns_url.startswith("inode://"):
            kernel.netns_url = self.namespace or own_namespace()


class KernelServer(Element):
    """Answer with the namespace of this endpoint and a name for its end; leaves other mechanisms alone."""

    def __init__(self, *, namespace: str = "", name: Callable[[str], str] = interface_name) -> None:
        self.namespace = namespace
        self._make = name
        self._used: set[str] = set()
        self._name = Slot[str]("interface name")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        def name(service: str) -> str:
            return self._name.get(call) or self._fresh(call, service)

        complete_kernel(request.connection, netns_url=self.namespace or own_namespace(), name=name)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        name = self._name.pop(call)
        if name is not None:
            self._used.discard(name)
        await next.close(call, conn)

    def _fresh(self, call: Call, service: str) -> str:
        # four random letters repeat among a few thousand connections
        for _ in range(_TRIES):
            name = self._make(service)
            if name not in self._used:
                self._used.add(name)
                return self._name.set(call, name)
        raise Exhausted(f"no free interface name for service {service!r}", hint="give the endpoint a wider name maker")
