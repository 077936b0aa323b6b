# SPDX-License-Identifier: Apache-2.0
"""What an application uses to offer network services.

`RegisteredRole` serves the chains of a role at an address, registers it with a manager, and keeps it registered until
the end: forwarders are that. `Endpoint` is one whose chain is an endpoint's (`nsm_sdk.chains.nse`), made of the
elements it is given; with `passthrough` it hands each connection on to another endpoint.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import anyio

from nsm_sdk.api import KERNEL, Match, NetworkService, NetworkServiceEndpoint, ServiceUrl, Target, interface_name
from nsm_sdk.chains import nse, registrant
from nsm_sdk.core import (
    Backoff,
    Block,
    Call,
    Chain,
    Clock,
    Dial,
    Element,
    Listen,
    Next,
    Observer,
    Role,
    Running,
    Service,
)
from nsm_sdk.elements import ClientUrl, Connect, OnIdle, Passthrough
from nsm_sdk.errors import DeadlineExceeded, InvalidRequest, NsmError, pushback
from nsm_sdk.mechanisms import CrossConnect, KernelClient, KernelServer, Mechanisms, TranslateMechanism
from nsm_sdk.netlink import NetlinkThread
from nsm_sdk.security import Source, TokenGenerator
from nsm_sdk.transport import Dialer, listen
from nsm_sdk.transport.sockets import short_folder

logger = logging.getLogger("nsm_sdk.endpoint")

UNREGISTER_TIME = 2.0
"""Seconds in which the end of an `async with` takes the registration back."""
TRY_TIME = 15.0
"""Seconds of one try to register."""
PAUSES = Backoff(0.05, 2.0, 1.0, 1.25)
"""Between tries that were refused for good, in the background; never more than 20 tries a second."""

Registering = Literal["wait", "background", "never"]


@dataclass(frozen=True, slots=True)
class OfferedService:
    """A network service as an endpoint offers it.

    `name`: its name; `name@domain` for a service of another domain.
    `labels`: labels of the endpoint under this service. Default: those of the endpoint.
    `payload`: `IP` or `ETHERNET`, as the service is registered. Default: that of the endpoint.
    `matches`: rules by which clients are led to endpoints of the service, as the service is registered. Default: none,
    any client gets any endpoint. The endpoint that registers a service last decides, so endpoints of one service
    should all give the same.
    """

    name: str
    _: KW_ONLY
    labels: Mapping[str, str] | None = None
    payload: str = ""
    matches: Sequence[Match] = ()


class RegisteredRole(Block):
    """A role that is served at an address and kept registered; use it with `async with`.

    `role`: the chains that peers call; `role` and `registrant` may be edited before the start.
    `services`: the services under which it is registered. Without one nothing is registered.
    `registry`: URL of the manager (or registry) to register with.
    `listen`: where it listens: URLs, or what `nsm_sdk.transport.listen` makes of one; the first is registered. With
    port 0 the port taken is registered, with an unspecified host the address of this machine. Default: a unix socket
    in a temporary folder.
    `dial`: how peers are called. `shared`: services that are started with it.
    `register`: `wait`: the start returns when the registration stands, and raises what prevents it within `timeout`
    seconds; `background`: the start returns at once, and registering is tried for ever; `never`.
    `register_service`: whether the services themselves are registered, too.
    `unregister`: whether the end takes the registration back, within `UNREGISTER_TIME` seconds; else it expires.
    `drain`: seconds that calls under way get at the end, 2 by default.
    """

    sort = "role"

    def __init__(
        self,
        role: Role,
        *,
        services: Sequence[OfferedService] = (),
        registry: str = "",
        listen: str | Listen | Sequence[str | Listen] = "",
        dial: Dial | None = None,
        shared: Sequence[Service] = (),
        labels: Mapping[str, str] | None = None,
        payload: str = "IP",
        register: Registering = "wait",
        register_service: bool = True,
        unregister: bool = True,
        timeout: float = 15.0,
        drain: float = 2.0,
    ) -> None:
        self.name = role.name
        self.offered = tuple(services)
        if any(not one.name for one in self.offered):
            raise InvalidRequest(f"{self.sort} {self.name!r}: a service without a name", hint="give every service one")
        self.labels = dict(labels or {})
        self.payload = payload
        several = listen if isinstance(listen, Sequence) and not isinstance(listen, str) else (listen,)
        self.listen: tuple[str | Listen, ...] = tuple(several) or ("",)
        self.registers: Registering = register if self.offered and dial is not None else "never"
        self.registers_service = register_service
        self.unregisters = unregister
        self.timeout = timeout
        self.drain = drain
        self.role = role
        self.registrant: Role | None = None
        if dial is not None and self.offered:
            self.registrant = registrant(self.name, manager=registry, dial=dial, try_time=TRY_TIME, services=shared)
        self._stack: AsyncExitStack | None = None
        self._running: Running | None = None
        self._registering: Running | None = None
        self._entry: NetworkServiceEndpoint | None = None
        self._keeping: anyio.CancelScope | None = None
        self._settled = anyio.Event()
        self._refused: NsmError | None = None

    @property
    def services(self) -> tuple[str, ...]:
        """Names of the services it is registered under."""
        return tuple(one.name for one in self.offered)

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self, *, clock: Clock | None = None, observe: Observer | None = None) -> Self:
        """What `async with` does at its start. Errors of the first registration are raised; nothing is left then."""
        await self.serve(clock=clock, observe=observe)
        try:
            if self.registers == "wait":
                await self.register()
            elif self.registers == "background":
                self._keeping = self._need(self._registering).runtime.spawn(self._keep, "first registration")
        except BaseException:
            await self.stop()
            raise
        return self

    async def serve(self, *, clock: Clock | None = None, observe: Observer | None = None) -> Self:
        """Listen, without registering."""
        self._only_once(self._stack)
        self._settled, self._refused = anyio.Event(), None
        async with AsyncExitStack() as stack:
            await self._start_before(stack, clock, observe)
            where = [self._listener(one, stack) for one in self.listen]
            serving = self.role.serving(listen=where, clock=clock, observe=observe, drain=self.drain)
            self._running = await stack.enter_async_context(serving)
            if self.registrant is not None:
                registering = self.registrant.serving(clock=clock, observe=observe, drain=0.1)
                self._registering = await stack.enter_async_context(registering)
            self._stack = stack.pop_all()
        return self

    async def _start_before(self, stack: AsyncExitStack, clock: Clock | None, observe: Observer | None) -> None:
        """Start what must run before anybody calls."""

    def _listener(self, where: str | Listen, stack: AsyncExitStack) -> Listen:
        if not isinstance(where, str):
            return where
        return listen(where) if where else stack.enter_context(_temporary(self.name))

    async def stop(self) -> None:
        """Unregister (a manager that is gone is no error: the registration expires), stop listening, and end."""
        if self._stack is None:
            return
        stack, self._stack = self._stack, None
        with anyio.CancelScope(shield=True):
            if self._keeping is not None:
                self._keeping.cancel()
                # One that is under way may have arrived, and only its answer be missing.
                self._entry = self._entry or self.entry()
            if self.unregisters and not any(one.runtime.killed for one in self.served):
                try:
                    await self.unregister()
                except NsmError as error:
                    logger.warning("%s: not unregistered, the registration will expire: %s", self.name, error)
            if self._registering is not None:
                # What stands is left to expire, and what is under way is not undone: a dead manager would hold it up.
                self._registering.kill()
            await stack.aclose()
        self._running = self._registering = self._keeping = self._entry = None

    # -- registration -----------------------------------------------------------------------------------------------

    async def register(self, *, timeout: float | None = None) -> NetworkServiceEndpoint:
        """Register the services and the role, within `timeout` seconds; from then on the registration is kept alive."""
        running = self._need(self._registering)
        remaining = self.timeout if timeout is None else timeout

        async def run(deadline: float) -> NetworkServiceEndpoint:
            for _, step in self._steps(running):
                await step(Call(running.runtime, deadline=deadline))
            assert self._entry is not None
            return self._entry

        entry = await running.runtime.serve(run, remaining, f"register {self.name!r}")
        self._refused = None
        self._settled.set()
        return entry

    async def registered(self, *, timeout: float = 20.0) -> NetworkServiceEndpoint:
        """Wait until the registration stands, for `timeout` seconds at most; the registration.

        Raises what the manager or the registry refuses it with for good (trying goes on), DeadlineExceeded when
        time runs out.
        """
        with anyio.move_on_after(timeout) as scope:
            await self._settled.wait()
        if self._entry is not None:
            return self._entry
        if self._refused is not None:
            raise self._refused
        waited = f" within {timeout:g} s" if scope.cancelled_caught else ""
        raise DeadlineExceeded(
            f"{self.sort} {self.name} could not register{waited}", hint="see whether its manager and the registry run"
        )

    async def unregister(self, *, timeout: float = UNREGISTER_TIME) -> None:
        """Take the registration back; the services stay, others may offer them."""
        entry, self._entry = self._entry, None
        if entry is None:
            return
        running = self._need(self._registering)

        async def run(deadline: float) -> None:
            assert running.bound.nse is not None
            await running.bound.nse.unregister(Call(running.runtime, deadline=deadline), entry)

        await running.runtime.serve(run, timeout, f"unregister {self.name!r}")

    async def _keep(self) -> None:
        """Register, trying for ever; from then on the registrant keeps what stands."""
        running = self._need(self._registering)
        for what, step in self._steps(running):
            failures = 0
            while True:
                try:
                    await step(running.call())
                except Exception as error:
                    # Also a defect of ours must not end the tries.
                    self._refused = running.runtime.explain(error)
                    self._settled.set()
                    logger.warning("cannot register %s: %s", what, self._refused)
                    pause = PAUSES.pause(failures, running.runtime.dice)
                    await anyio.sleep(max(pause, pushback(error)))
                    failures += 1
                else:
                    break
        self._refused = None
        self._settled.set()

    def _steps(self, running: Running) -> list[tuple[str, Callable[[Call], Coroutine[Any, Any, object]]]]:
        """What has to be registered, in order."""

        def service(one: OfferedService) -> Callable[[Call], Coroutine[Any, Any, object]]:
            async def register(call: Call) -> None:
                assert running.bound.ns is not None
                payload = one.payload or self.payload
                entry = NetworkService(name=one.name, payload=payload, matches=one.matches)
                await running.bound.ns.register(call, entry)

            return register

        async def endpoint(call: Call) -> None:
            assert running.bound.nse is not None
            self._entry = await running.bound.nse.register(call, self.entry())

        services = self.offered if self.registers_service else ()
        return [*((one.name, service(one)) for one in services), (self.name, endpoint)]

    def entry(self) -> NetworkServiceEndpoint:
        """What is registered."""
        entry = NetworkServiceEndpoint(name=self.name, network_service_names=self.services, url=self.url)
        for one in self.offered:
            labels = self.labels if one.labels is None else one.labels
            entry.network_service_labels[one.name].labels.update(labels)
        return entry

    @property
    def registration(self) -> NetworkServiceEndpoint | None:
        """The registration as it was answered first; None while there is none."""
        return self._entry

    # -- what runs --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where peers reach it."""
        return public_url(self.running.urls[:1])

    @property
    def running(self) -> Running:
        """The role that is served; ProgrammingError outside of `async with`."""
        return self._need(self._running)

    @property
    def served(self) -> list[Running]:
        """Every role that is served: its own, and the one that registers."""
        return [one for one in (self._running, self._registering) if one is not None]


class Endpoint(RegisteredRole):
    """An endpoint called `name` of one service or several; use it with `async with`.

    `elements`: they do its work, for example `PointToPointIpam("172.16.0.0/24")`; a request meets them in this order,
    before the interface of the endpoint is named.
    `service`: the services it offers, by name, or as `OfferedService` where one has labels, a payload or match rules
    of its own.
    `registry`: URL of the manager (or registry) to register with.
    `listen`: where it listens: URLs, or what `nsm_sdk.transport.listen` makes of one; the first is registered. With
    port 0 the port taken is registered, with an unspecified host the address of this machine. Default: a unix socket
    in a temporary folder.
    `payload`: `IP` (the default) or `ETHERNET`: what its services carry, as they are registered.
    `labels`: labels of the endpoint, under each of its services. Default: none.
    `identity`: who the endpoint is: a source of identities, or a generator of tokens with one. Default: the insecure
    identity of that name.
    `namespace`: URL of the network namespace that gets the interfaces. Default: that of this process.
    `simulated`: whether requests that ask for no interface are taken, as forwarders without a datapath pass them on.
    Default: False.
    `register`: `wait` (the default): the start returns when the registration stands, and raises what prevents it
    within `timeout` seconds; `background`: the start returns at once, and registering is tried for ever; `never`.
    In any case a registration that stood is made again when the manager or the registry has lost it.
    `register_service`: whether the services themselves are registered, too. Default: True.
    `unregister`: whether the end takes the registration back. Default: True; else it expires.
    `timeout`: seconds in which the first registration has to stand. Default: 15.
    `drain`: seconds that calls under way get at the end. Default: 2.
    `idle_timeout`: seconds without a connection after which `on_idle` is called once, and requests are refused from
    then on. Default: 0, never.
    `secret`: from which the ids of connections are derived; give the same again and they survive a restart. Default:
    a random one.
    `client`: a `Client` that is started before the endpoint and stopped after it, for elements that need connections
    of their own. Default: none.
    `passthrough`: True: the endpoint hands each connection on to another endpoint of the same service, which is chosen
    by the labels of this one instead of the client's; a service URL such as `kernel://other?label=value`: to an
    endpoint of that service, by these labels as well. The connection gets a second interface in `namespace`; addresses
    come from the last endpoint. Default: False.
    `forwards`: whether the kernel passes packets between the two interfaces of a passthrough; that takes CAP_NET_ADMIN
    in `namespace`. Default: True, but with `simulated` there is nothing to pass.
    `dial`: how peers are called. Default: by gRPC, with the tokens of `identity`.
    """

    sort = "endpoint"

    def __init__(
        self,
        name: str,
        *elements: Element | Chain[Next],
        service: str | OfferedService | Sequence[str | OfferedService],
        registry: str,
        listen: str | Listen | Sequence[str | Listen] = "",
        payload: str = "IP",
        labels: Mapping[str, str] | None = None,
        identity: Source | TokenGenerator | None = None,
        namespace: str = "",
        simulated: bool = False,
        register: Registering = "wait",
        register_service: bool = True,
        unregister: bool = True,
        timeout: float = 15.0,
        drain: float = 2.0,
        idle_timeout: float = 0.0,
        on_idle: Callable[[], object] = lambda: None,
        secret: str = "",
        client: Block | None = None,
        passthrough: bool | str = False,
        forwards: bool = True,
        dial: Dial | None = None,
    ) -> None:
        several = [service] if isinstance(service, (str, OfferedService)) else list(service)
        offered = [OfferedService(one) if isinstance(one, str) else one for one in several]
        if not all(one.name for one in offered) or not offered:
            raise InvalidRequest(
                f"endpoint {name!r} has no service", hop=name, hint="give the names of the services it offers"
            )
        tokens = TokenGenerator.of(identity, "nse", name)
        dial = Dialer(tokens) if dial is None else dial
        given: tuple[object, ...] = (tokens, dial)
        shared = [one for one in given if isinstance(one, Service)]
        role = nse(
            name,
            *([OnIdle(idle_timeout, on_idle)] if idle_timeout else []),
            *elements,
            Mechanisms({KERNEL: KernelServer(namespace=namespace)}, unasked=simulated),
            tokens=tokens,
            secret=secret,
            onward=_onward(
                passthrough, offered, labels or {}, registry, dial, namespace, forwards=forwards and not simulated
            )
            if passthrough
            else (),
            services=shared,
        )
        self.client = client
        super().__init__(
            role,
            services=offered,
            registry=registry,
            listen=listen,
            dial=dial,
            shared=shared,
            labels=labels,
            payload=payload,
            register=register,
            register_service=register_service,
            unregister=unregister,
            timeout=timeout,
            drain=drain,
        )

    async def _start_before(self, stack: AsyncExitStack, clock: Clock | None, observe: Observer | None) -> None:
        if self.client is not None:
            await self.client.start(clock=clock, observe=observe)
            stack.push_async_callback(self.client.stop)


def _onward(
    passthrough: bool | str,
    offered: Sequence[OfferedService],
    labels: Mapping[str, str],
    manager: str,
    dial: Dial,
    namespace: str,
    *,
    forwards: bool,
) -> list[Element]:
    """The second leg of a passthrough: another service or labels, another interface, and on to the manager again."""
    where = ServiceUrl.parse(passthrough) if isinstance(passthrough, str) else None
    more = where.labels if where is not None else {}
    by_service = {one.name: {**one.labels, **more} for one in offered if one.labels is not None}
    name = where.mechanism().parameters.get("name", "") if where is not None else ""
    return [
        Passthrough({**labels, **more}, service=where.service if where is not None else "", by_service=by_service),
        *([CrossConnect(NetlinkThread(name="nsm-passthrough"), namespace=namespace)] if forwards else []),
        TranslateMechanism(),
        KernelClient(namespace=namespace, name=(lambda _: name) if name else interface_name),
        ClientUrl(manager),
        Connect(dial),
    ]


@contextmanager
def _temporary(name: str) -> Iterator[Listen]:
    """A unix socket in a folder of its own, which goes with the endpoint."""
    with TemporaryDirectory(prefix="nsm-nse-", dir=short_folder(), ignore_cleanup_errors=True) as folder:
        # The folder is closed to others by default; the forwarder may be another user.
        os.chmod(folder, 0o755)
        yield listen(f"unix://{folder}/listen.on", mode=0o777)


def public_url(urls: Sequence[str]) -> str:
    """Of where a hop listens, what it tells other nodes: TCP before unix, a real address before "all of them"."""
    tcp = [Target.parse(url) for url in urls if url.startswith("tcp:")]
    if not tcp:
        return urls[0]
    return next((target.url for target in tcp if target.host not in ("", "0.0.0.0", "::")), "") or _own_url(tcp[0].port)


def _own_url(port: int) -> str:
    """This machine's address towards others, found without sending anything; the loopback address where it has none."""
    for family, far, form in (
        (socket.AF_INET, "192.0.2.1", "tcp://{}:{}"),
        (socket.AF_INET6, "2001:db8::1", "tcp://[{}]:{}"),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((far, 9))
                return form.format(probe.getsockname()[0], port)
            except OSError:
                continue
    return f"tcp://127.0.0.1:{port}"
