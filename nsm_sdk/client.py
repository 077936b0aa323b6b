# SPDX-License-Identifier: Apache-2.0
"""What an application uses to get interfaces to network services.

Does:  `Client` serves a client's chain and opens connections through a manager, trying again until they stand or the
       time is over; each open connection is refreshed and healed until its `async with` ends.
Place: applications; `nsm_sdk.chains.nsc` is the chain inside.
State: the open connections.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, Self

import anyio

from nsm_sdk.api import Connection, ConnectionContext, Request, ServiceUrl, Snapshot, describe, names
from nsm_sdk.chains import nsc
from nsm_sdk.core import Block, Call, Cause, Clock, Dial, Element, Next, Observer, Role, Running, Service
from nsm_sdk.elements import Retry
from nsm_sdk.errors import NsmError
from nsm_sdk.heal import Happenings, Heal, Resume, Stream
from nsm_sdk.mechanisms import KernelClient
from nsm_sdk.security import Source, TokenGenerator
from nsm_sdk.transport import Dialer

logger = logging.getLogger("nsm_sdk.client")

CLOSE_TIME = 5.0
"""Seconds in which the end of an `async with` closes a connection, whatever has happened in its body."""


class OpenConnection:
    """One connection of a client. What it shows is the present state, also after healing has moved it."""

    def __init__(self, client: Client, snapshot: Snapshot) -> None:
        self._client = client
        self._snapshot = snapshot
        self.id = snapshot.id

    @property
    def connection(self) -> Connection:
        """The connection as it was last answered; a copy."""
        return self._snapshot.connection()

    @property
    def context(self) -> ConnectionContext:
        """What was agreed on: addresses, routes, neighbours, names, MTU, extra context; a copy."""
        return self.connection.context

    @property
    def src(self) -> list[str]:
        """Our own addresses, with prefix lengths."""
        return list(self.connection.context.ip_context.src_ip_addrs)

    @property
    def dst(self) -> list[str]:
        """The endpoint's addresses, with prefix lengths."""
        return list(self.connection.context.ip_context.dst_ip_addrs)

    @property
    def path(self) -> list[str]:
        """Names of all hops, ours first."""
        return names(self.connection)

    @property
    def endpoint(self) -> str:
        """Name of the endpoint in use."""
        return self.connection.network_service_endpoint_name

    @property
    def mechanism(self) -> str:
        """Type of the mechanism, such as KERNEL."""
        return self.connection.mechanism.type

    @property
    def interface(self) -> str:
        """Name of our interface; empty where the mechanism has none."""
        return self.connection.mechanism.parameters.get("name", "")

    def events(self) -> Stream:
        """What happens to the connection from now on: an asynchronous iterator that ends when it is closed.

        Bounded: a reader that is too slow loses the oldest, and is told how many.
        """
        return self._client.happenings.stream(self.id)

    async def refresh(self, *, labels: Mapping[str, str] | None = None, timeout: float | None = None) -> None:
        """Request again now, with `labels` if given; errors as of `Client.connect`."""
        conn = self.connection
        if labels is not None:
            conn.labels.clear()
            conn.labels.update(labels)
        await self._client.request(Request(connection=conn), timeout=timeout)

    async def close(self, *, timeout: float | None = None) -> None:
        """Close now; the end of the `async with` finds nothing left to do."""
        await self._client.close(self.connection, timeout=timeout)

    def __repr__(self) -> str:
        return f"<OpenConnection {describe(self.connection)}>"


def request_for(
    url: str | ServiceUrl, *, id: str = "", labels: Mapping[str, str] | None = None, endpoint: str = ""
) -> Request:
    """The request for a connection to `kernel://service[@domain][/interface][?label=value]`.

    `id`: of the connection; empty: one is chosen. `labels`: those of the URL win. `endpoint`: name of the only one that
    will do. InvalidRequest for a URL that cannot be right.
    """
    wanted = ServiceUrl.parse(url) if isinstance(url, str) else url
    request = Request(mechanism_preferences=[wanted.mechanism()])
    conn = request.connection
    conn.id, conn.network_service, conn.network_service_endpoint_name = id, wanted.service, endpoint
    conn.labels.update({**(labels or {}), **wanted.labels})
    return request


class Client(Block):
    """A client called `name` of the manager at the URL `manager`; use it with `async with`.

    `elements`: elements of your own, close to the wire: they see a request as it leaves, and its answer as it comes.
    `name`: name of the client in the mesh, `nsc` by default; clients of one manager need distinct ones.
    `timeout`: seconds in which `connect` keeps trying, and the longest time of one try. Default: 15.
    `identity`: who the client is: a source of identities, or a generator of tokens with one. Default: the insecure
    identity of that name.
    `namespace`: URL of the network namespace that gets the interfaces. Default: that of this process.
    `interface`: whether an interface is asked for. Default: True; without it the elements say what they want.
    `labels`: labels that are added to every connection. Default: none.
    `environment`: may hold NODE_NAME, POD_NAME and CLUSTER_NAME, which become labels. Default: nothing.
    `heal`: what watches and repairs connections. Default: one that believes the control plane; give it a probe, and it
    asks the datapath first; False: nothing does.
    `retry`: how requests that fail are repeated. Default: until the caller's time is over, with pauses that grow from
    about 50 ms to 2 s; False: every request is made once.
    `resume`: whether `connect` keeps what an earlier run of this name has left at the manager, the check by `heal`
    first. Default: False.
    `close_timeout`: seconds in which the end closes what is open. Default: 5; 0 leaves it to expire.
    `drain`: seconds that the end waits for what is still being undone. Default: 2.
    `secret`: from which the ids of connections are derived. Default: a random one.
    `dial`: how peers are called. Default: by gRPC, with the tokens of `identity`.
    `services`: more services that run while the client does. Default: none.

    `role` may be edited before the start.
    """

    sort = "client"

    def __init__(
        self,
        manager: str,
        *elements: Element,
        name: str = "nsc",
        timeout: float = 15.0,
        identity: Source | TokenGenerator | None = None,
        namespace: str = "",
        interface: bool = True,
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        heal: Heal | Literal[False] | None = None,
        retry: Retry | Literal[False] | None = None,
        resume: bool = False,
        close_timeout: float = CLOSE_TIME,
        drain: float = 2.0,
        secret: str = "",
        dial: Dial | None = None,
        services: Sequence[Service] = (),
    ) -> None:
        self.name = name
        self.manager = manager
        self.timeout = timeout
        self.labels = dict(labels or {})
        self.resumes = resume
        self.heal = Heal(namespace=namespace) if heal is None else heal or None
        self.happenings = Happenings() if self.heal is None else self.heal.happenings
        self.close_timeout = close_timeout
        self.drain = drain
        tokens = TokenGenerator.of(identity, "nsc", name)
        dial = Dialer(tokens) if dial is None else dial
        given: tuple[object, ...] = (tokens, dial)
        shared = [one for one in given if isinstance(one, Service)]
        if retry is None:
            retry = Retry(per_try=timeout, pause=0.05, longest=2.0)
        earlier = None
        if resume:
            earlier = Resume(name, manager=manager, dial=dial, heal=self.heal, namespace=namespace)
        self.role: Role = nsc(
            name,
            *([KernelClient(namespace=namespace)] if interface else []),
            *elements,
            manager=manager,
            dial=dial,
            retry=retry or None,
            told=self._told,
            heal=[self.heal] if self.heal is not None else [],
            resume=earlier,
            environment=environment,
            secret=secret,
            services=[*shared, *services],
        )
        self._open: dict[str, OpenConnection] = {}
        self._lasting: set[str] = set()
        self._stack: AsyncExitStack | None = None
        self._running: Running | None = None

    async def start(self, *, clock: Clock | None = None, observe: Observer | None = None) -> Self:
        """What `async with` does at its start; `observe` is put into the chain. End with `stop`."""
        self._only_once(self._stack)
        self._stack = AsyncExitStack()
        self._running = await self._stack.enter_async_context(
            self.role.serving(clock=clock, observe=observe, drain=self.drain)
        )
        return self

    async def stop(self, *, timeout: float | None = None) -> None:
        """Close what is open, all at the same time, within `timeout` seconds (default: `close_timeout`), and end."""
        if self._stack is None:
            return
        seconds = self.close_timeout if timeout is None else timeout
        try:
            if seconds > 0:
                async with anyio.create_task_group() as tasks:
                    for connection in list(self._open.values()):
                        tasks.start_soon(self._close_quietly, connection.connection, seconds)
        finally:
            stack, self._stack, self._running = self._stack, None, None
            with anyio.CancelScope(shield=True):
                await stack.aclose()
            self.happenings.end()

    @property
    def running(self) -> Running:
        """The role that is served; ProgrammingError outside of `async with`."""
        return self._need(self._running)

    @property
    def served(self) -> list[Running]:
        """Every role that is served: one, or none outside of `async with`."""
        return [] if self._running is None else [self._running]

    @property
    def connections(self) -> list[OpenConnection]:
        """Those that are open."""
        return list(self._open.values())

    @asynccontextmanager
    async def connect(
        self, url: str, *, labels: Mapping[str, str] | None = None, id: str = "", timeout: float | None = None
    ) -> AsyncGenerator[OpenConnection, None]:
        """Open a connection to `kernel://service[@domain][/interface][?label=value]`, and close it at the end.

        The error of the last try is raised when it does not stand within `timeout` seconds (default: that of the
        client; `math.inf` tries for ever): `NoCandidate` when no endpoint fits, `Unavailable` when somebody does not
        answer, `InvalidRequest` for a URL that cannot be right.

        `id`: default a random one. A client that resumes knows a connection by it after a restart; there the default
        follows from the client's name and `url`, for the first of those that are open to the same URL at a time.
        """
        ServiceUrl.parse(url)
        own = id or self._new_id(url)
        stood = own in self._open
        request = request_for(url, id=own, labels={**self.labels, **(labels or {})})
        try:
            connection = await self.open(request, timeout=timeout)
        except BaseException as error:
            # The answer may have come in the very moment in which we were cancelled; then nobody else would close it.
            # One that was open before is whose it was.
            if not stood and (not isinstance(error, Exception) or own in self._open):
                await self._close_quietly(request.connection)
            self._lasting.discard(own)
            raise
        try:
            yield connection
        finally:
            if own in self._open:
                await self._close_quietly(connection.connection)
            self._lasting.discard(own)

    async def open(self, request: Request, *, timeout: float | None = None) -> OpenConnection:
        """Open the connection of a request of your own; it stays open until `close` or the client's end."""
        conn = await self.request(request, timeout=timeout)
        return self._open.get(conn.id) or self._opened(Snapshot.of(conn))

    async def request(self, request: Request, *, timeout: float | None = None) -> Connection:
        """Send a copy of `request` through the chain; returns the connection."""
        mine = Request()
        mine.CopyFrom(request)
        running, chain = self.running, self._chain()

        async def run(deadline: float) -> Connection:
            return await chain.request(Call(running.runtime, deadline=deadline), mine)

        remaining = self.timeout if timeout is None else timeout
        return await running.runtime.serve(run, remaining, f"request {mine.connection.network_service!r}")

    async def close(self, conn: Connection, *, timeout: float | None = None) -> None:
        """Close a connection of this client; one that is closed already is no error."""
        mine = Connection()
        mine.CopyFrom(conn)
        running, chain = self.running, self._chain()

        async def run(deadline: float) -> None:
            await chain.close(Call(running.runtime, deadline=deadline), mine)

        remaining = self.timeout if timeout is None else timeout
        await running.runtime.serve(run, remaining, f"close {mine.id!r}")

    def _new_id(self, url: str) -> str:
        lasting = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.name} {url}"))
        if not self.resumes or lasting in self._lasting:
            return str(uuid.uuid4())
        self._lasting.add(lasting)
        return lasting

    def _chain(self) -> Next:
        chain = self.running.bound.connection
        assert chain is not None
        return chain

    async def _close_quietly(self, conn: Connection, seconds: float = CLOSE_TIME) -> None:
        """Close whatever happens around; `Begin` goes on trying for what could not be closed now."""
        if self._running is None or self._running.runtime.killed:
            return
        with anyio.move_on_after(seconds + 1, shield=True):
            try:
                await self.close(conn, timeout=seconds)
            except NsmError as error:
                # The end of a block must not hide how the block ended, nor keep others from being closed.
                logger.warning("client %s: closing %s: %s", self.name, conn.id, error)

    def _told(self, cause: Cause, snapshot: Snapshot, is_open: bool) -> None:
        if not is_open:
            self._open.pop(snapshot.id, None)
        elif (connection := self._open.get(snapshot.id)) is not None:
            connection._snapshot = snapshot
        else:
            self._opened(snapshot)

    def _opened(self, snapshot: Snapshot) -> OpenConnection:
        connection = self._open[snapshot.id] = OpenConnection(self, snapshot)
        return connection
