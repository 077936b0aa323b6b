# SPDX-License-Identifier: Apache-2.0
"""Packets pass through an endpoint: what comes in by one of a connection's two interfaces leaves by the other.

Does:  policy rules send what arrives by the near interface out by the far one, and the other way round, before the
       namespace's own addresses are looked at: each of the two interfaces has got the address of the peer behind the
       other. The near interface is made after the endpoint has answered, so a watch on the namespace's links completes
       what cannot be done at once, and what a repaired interface has lost. TranslateMechanism keeps the mechanisms of
       the two legs apart.
Place: in endpoints that hand connections on, behind `Mechanisms`.
State: the two interfaces of each connection; its mechanism on the way to the next endpoint, in a slot.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

import anyio

from nsm_sdk.api import KERNEL, Connection, Mechanism, Request
from nsm_sdk.core import Call, Element, Next, Runtime, Service, Slot
from nsm_sdk.errors import FailedPrecondition, NsmError, PermissionDenied, ProgrammingError
from nsm_sdk.mechanisms.join import close_far, request_far
from nsm_sdk.mechanisms.kernel import own_namespace
from nsm_sdk.mechanisms.model import Add, Op, Remove, Route, Rule
from nsm_sdk.mechanisms.ports import Kernel, LinkWatch, Namespace, Netlink

logger = logging.getLogger("nsm_sdk.mechanisms")

PRIORITY = 90
"""Of the policy rules, before that of the namespace's own addresses."""
FIRST_TABLE = 0x4E00_0000
"""The table for what leaves by an interface is this and the interface's index."""
FAR_MECHANISM: Slot[bytes] = Slot("far mechanism")
"""What the next endpoint has chosen, as bytes."""
_DEFAULT = {4: "0.0.0.0", 6: "::"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Names of the two interfaces of one connection: to the client, and to the next endpoint."""

    near: str
    far: str


class CrossConnect(Element):
    """Let packets pass between a connection's two interfaces in `namespace` (URL; default: that of this process).

    PermissionDenied where the process may not do that.
    """

    far = FAR_MECHANISM

    def __init__(self, netlink: Netlink, *, namespace: str = "") -> None:
        self.namespace = namespace
        self._pairs = _Pairs(netlink, namespace or own_namespace())
        self._pair = Slot[Pair]("interfaces that are joined")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        far, near = Mechanism.FromString(FAR_MECHANISM.get(call) or b""), conn.mechanism
        if far.type != KERNEL or near.type != KERNEL:
            return conn
        if conn.payload == "ETHERNET" and any(":" in one for one in conn.context.ip_context.dst_ip_addrs):
            logger.warning(
                "%s: IPv6 does not pass with payload ETHERNET; register the services with payload IP",
                call.runtime.name,
            )
        pair = Pair(near.parameters.get("name", ""), far.parameters.get("name", ""))
        before = self._pair.get(call)
        if before is not None and before != pair:
            await self._pairs.part(before)
        await self._pairs.join(self._pair.set(call, pair))
        return conn

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        pair = self._pair.get(call)
        try:
            if pair is not None:
                await self._pairs.part(pair)
                self._pair.pop(call)
        finally:
            await next.close(call, conn)


class TranslateMechanism(Element):
    """Keep the near mechanism and go on with the far one, for which an element below asks, like KernelClient."""

    after = (CrossConnect,)
    far = FAR_MECHANISM

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        return await request_far(call, request, FAR_MECHANISM, next.request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        await close_far(call, conn, FAR_MECHANISM, next)


class _Pairs(Service):
    """The pairs of one namespace."""

    def __init__(self, netlink: Netlink, url: str) -> None:
        self._netlink = netlink
        self._url = url
        self._pairs: set[Pair] = set()
        self._tables: dict[str, int] = {}
        self._runtime: Runtime | None = None
        self._following: anyio.CancelScope | None = None
        self._opening = anyio.Lock()

    async def start(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pairs.clear()

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
        self._runtime = self._following = None
        await self._netlink.aclose()

    async def join(self, pair: Pair) -> None:
        """Do what can be done now; the rest follows when its interface comes."""
        self._pairs.add(pair)
        try:
            # Before looking: an interface that comes in between would be missed.
            async with self._opening:
                if self._following is None and self._runtime is not None:
                    watch = await self._netlink.watch(self._url)
                    self._following = self._runtime.spawn(lambda: self._follow(watch), "links of a passthrough")
            await self._netlink.run(lambda kernel: self._join(kernel, pair))
        except ProgrammingError as error:
            # Without threads there is no kernel, either: a test in virtual time, with interfaces that are only said.
            logger.warning("packets do not pass from %s to %s: %s", pair.near, pair.far, error)
        except PermissionDenied as error:
            raise PermissionDenied(
                f"packets cannot pass from {pair.near} to {pair.far}: {error.message}",
                hint="give the endpoint CAP_NET_ADMIN in its namespace, or pass packets yourself (forwards=False)",
            ) from error

    async def part(self, pair: Pair) -> None:
        """Take the rules away; the routes go with the interfaces."""
        self._pairs.discard(pair)
        if not self._pairs and self._following is not None:
            self._following.cancel()
            self._following = None
        with contextlib.suppress(ProgrammingError, FailedPrecondition):
            await self._netlink.run(lambda kernel: self._part(kernel, pair))

    async def _follow(self, watch: LinkWatch) -> None:
        try:
            async for event in watch:
                if event.kind not in ("up", "lost"):
                    continue
                for pair in list(self._pairs):
                    if event.kind == "lost" or event.name in (pair.near, pair.far):
                        await self._again(pair)
        finally:
            with anyio.CancelScope(shield=True):
                await watch.aclose()

    async def _again(self, pair: Pair) -> None:
        try:
            await self._netlink.run(lambda kernel: self._join(kernel, pair))
        except NsmError as error:
            logger.warning("packets do not pass from %s to %s: %s", pair.near, pair.far, error)

    def _join(self, kernel: Kernel, pair: Pair) -> None:
        space = kernel.open(self._url)
        links = {name: space.link(name=name) for name in (pair.near, pair.far)}
        present = [name for name, link in links.items() if link is not None]
        if present:
            space.forward(present)
        for enters, leaves in ((pair.near, pair.far), (pair.far, pair.near)):
            link = links[leaves]
            if link is None:
                continue
            table = FIRST_TABLE + link.index
            ops: list[Op] = []
            if (old := self._tables.get(enters)) not in (None, table):
                ops += [Remove(_rule(family, enters, old)) for family in (4, 6)]
            for family in (4, 6):
                # Not marked as the forwarder's own, which it takes away when its connection does not ask for it.
                ops.append(Add(Route(dst=_DEFAULT[family], prefix=0, table=table, ours=False)))
                ops.append(Add(_rule(family, enters, table)))
            self._tables[enters] = table
            _apply(space, link.index, ops)

    def _part(self, kernel: Kernel, pair: Pair) -> None:
        tables = {name: table for name in (pair.near, pair.far) if (table := self._tables.pop(name, None)) is not None}
        ops: list[Op] = [Remove(_rule(family, name, table)) for name, table in tables.items() for family in (4, 6)]
        if ops:
            kernel.open(self._url).apply(0, ops)


def _rule(family: int, enters: str, table: int) -> Rule:
    return Rule(family=family, priority=PRIORITY, table=table, enters=enters)


def _apply(space: Namespace, index: int, ops: list[Op]) -> None:
    # A machine may lack IPv6; a namespace without IPv4 does not exist.
    failed = [one for one in space.apply(index, ops) if not (isinstance(one.op, (Add, Remove)) and _is_six(one.op))]
    if failed:
        raise FailedPrecondition(
            f"the kernel refuses {failed[0].op}: {failed[0].text}", hint="`nsm doctor` says what this machine can do"
        )


def _is_six(op: Add | Remove) -> bool:
    return isinstance(op.thing, (Route, Rule)) and op.thing.family == 6
