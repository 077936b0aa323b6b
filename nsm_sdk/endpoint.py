# SPDX-License-Identifier: Apache-2.0
"""What an application uses to offer network services.

Does:  `Endpoint` serves an endpoint's chain, registers it with a manager, and keeps it registered until the end.
Place: applications; `nsm_sdk.chains.nse` is the chain inside.
State: the registration.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Self

import anyio

from nsm_sdk.api import KERNEL, NetworkService, NetworkServiceEndpoint
from nsm_sdk.chains import nse, registrant
from nsm_sdk.core import Block, Call, Chain, Clock, Dial, Element, Next, Observer, Role, Running, Service
from nsm_sdk.errors import InvalidRequest, NsmError
from nsm_sdk.mechanisms import KernelServer, Mechanisms
from nsm_sdk.security import Insecure, Source, TokenGenerator
from nsm_sdk.transport import Dialer, listen

logger = logging.getLogger("nsm_sdk.endpoint")

UNREGISTER_TIME = 2.0
"""Seconds in which the end of an `async with` takes the registration back."""


class Endpoint(Block):
    """An endpoint called `name` of one service or several; use it with `async with`.

    `elements` do its work, for example `PointToPointIpam("172.16.0.0/24")`.
    `registry`: URL of the manager (or registry) to register with.
    `listen`: where it listens; with port 0 the port taken is registered.
    `labels`: those of the endpoint, for each of its services.
    `namespace`: URL of the network namespace that gets the interfaces, default our own.
    `register_service`: also register the services themselves.
    `timeout`: seconds in which the first registration has to succeed.
    `unregister`: take the registration back at the end; else it expires.
    """

    sort = "endpoint"

    def __init__(
        self,
        name: str,
        *elements: Element | Chain[Next],
        service: str | Sequence[str],
        registry: str,
        listen: str,
        payload: str = "IP",
        labels: Mapping[str, str] | None = None,
        identity: Source | None = None,
        namespace: str = "",
        register_service: bool = True,
        unregister: bool = True,
        timeout: float = 15.0,
        dial: Dial | None = None,
    ) -> None:
        self.name = name
        self.services: tuple[str, ...] = (service,) if isinstance(service, str) else tuple(service)
        if not all(self.services) or not self.services:
            raise InvalidRequest(f"endpoint {name!r} has no service", hint="give the names of the services it offers")
        self.payload = payload
        self.labels = dict(labels or {})
        self.timeout = timeout
        self.listen = listen
        self.unregisters = unregister
        self.registers_service = register_service
        tokens = TokenGenerator(identity or Insecure("nse", name))
        shared: list[Service] = [tokens]
        if dial is None:
            dialer = Dialer(tokens)
            shared.append(dialer)
            dial = dialer
        self.role: Role = nse(
            name,
            *elements,
            Mechanisms({KERNEL: KernelServer(namespace=namespace)}),
            tokens=tokens,
            services=shared,
        )
        self.registrant: Role = registrant(name, manager=registry, dial=dial, services=shared)
        self._stack: AsyncExitStack | None = None
        self._running: Running | None = None
        self._registering: Running | None = None
        self._entry: NetworkServiceEndpoint | None = None

    async def start(self, *, clock: Clock | None = None, observe: Observer | None = None) -> Self:
        """What `async with` does at its start. Errors of the first registration come out; nothing is left then."""
        await self.serve(clock=clock, observe=observe)
        try:
            await self.register()
        except BaseException:
            await self.stop()
            raise
        return self

    async def serve(self, *, clock: Clock | None = None, observe: Observer | None = None) -> Self:
        """Listen, without registering; for those who register in the background (`register`)."""
        self._only_once(self._stack)
        async with AsyncExitStack() as stack:
            serving = self.role.serving(listen=[listen(self.listen)], clock=clock, observe=observe)
            self._running = await stack.enter_async_context(serving)
            self._registering = await stack.enter_async_context(self.registrant.serving(clock=clock))
            self._stack = stack.pop_all()
        return self

    async def register(self, *, timeout: float | None = None) -> NetworkServiceEndpoint:
        """Register the services and the endpoint; from then on the registration is kept alive."""
        running = self._need(self._registering)
        remaining = self.timeout if timeout is None else timeout
        entry = self.entry()

        async def run(deadline: float) -> NetworkServiceEndpoint:
            ns, nse = running.bound.ns, running.bound.nse
            assert ns is not None
            assert nse is not None
            for service in self.services if self.registers_service else ():
                await ns.register(
                    Call(running.runtime, deadline=deadline), NetworkService(name=service, payload=self.payload)
                )
            return await nse.register(Call(running.runtime, deadline=deadline), entry)

        self._entry = await running.runtime.serve(run, remaining, f"register {self.name!r}")
        return self._entry

    async def unregister(self, *, timeout: float = UNREGISTER_TIME) -> None:
        """Take the registration of the endpoint back; its services stay, others may offer them."""
        entry, self._entry = self._entry, None
        if entry is None:
            return
        running = self._need(self._registering)

        async def run(deadline: float) -> None:
            assert running.bound.nse is not None
            await running.bound.nse.unregister(Call(running.runtime, deadline=deadline), entry)

        await running.runtime.serve(run, timeout, f"unregister {self.name!r}")

    async def stop(self) -> None:
        """Unregister (a manager that is gone is no error: the registration expires), stop listening, and end."""
        if self._stack is None:
            return
        stack, self._stack = self._stack, None
        with anyio.CancelScope(shield=True):
            if self.unregisters:
                try:
                    await self.unregister()
                except NsmError as error:
                    logger.warning("%s: not unregistered, the registration will expire: %s", self.name, error)
            await stack.aclose()
        self._running = self._registering = None

    def entry(self) -> NetworkServiceEndpoint:
        """What is registered."""
        entry = NetworkServiceEndpoint(name=self.name, network_service_names=self.services, url=self.url)
        for service in self.services:
            entry.network_service_labels[service].labels.update(self.labels)
        return entry

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.running.urls[0]

    @property
    def running(self) -> Running:
        """The role that is served; ProgrammingError outside of `async with`."""
        return self._need(self._running)
