# SPDX-License-Identifier: Apache-2.0
"""The machine's kernel, as the datapath sees it: namespaces, pairs, state, changes.

Does:  keeps one netlink socket for each namespace in use, known by device and inode; makes a pair in one message with
       both ends where they belong; observes with dumps that the kernel filters; applies changes as one batch.
       A socket keeps its namespace alive, so those not used for a moment are closed: a pod that ends
       takes its links along.
Place: used by one thread, NetlinkThread.
State: the open sockets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NsmError, PermissionDenied
from nsm_sdk.mechanisms.model import Add, Address, Failure, Link, NamespaceId, Observed, Op, Remove, Rule, SetLink
from nsm_sdk.mechanisms.ports import Namespace, NewEnd
from nsm_sdk.netlink import codec
from nsm_sdk.netlink.sockets import NetlinkSocket, Refused, inside, open_namespace

_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}
_THERE = {errno.EEXIST}
_BATCH = 64
_TRIES = 8
_REACHABLE_WITHIN = 1.0
# indexes of our choice: far above those that the kernel hands out
_INDEXES = range(1 << 20, 1 << 30)


class _Open:
    """One namespace with its socket."""

    __slots__ = ("handle", "id", "socket", "used")

    def __init__(self, handle: int, identity: NamespaceId, channel: NetlinkSocket) -> None:
        self.handle = handle
        self.id = identity
        self.socket = channel
        self.used = time.monotonic()

    def close(self) -> None:
        self.socket.close()
        os.close(self.handle)


class KernelAdapter:
    """Implements the Kernel port. `open_ping`: let unprivileged programs of a foreign namespace send echo requests."""

    def __init__(self, *, open_ping: bool = True) -> None:
        self._open: dict[NamespaceId, _Open] = {}
        self._open_ping = open_ping
        own = os.stat("/proc/self/ns/net")
        self._own = NamespaceId(dev=own.st_dev, ino=own.st_ino)

    def open(self, url: str | int) -> NamespaceAdapter:
        """The namespace at a `file://` URL, a path, or an open descriptor; kept open for a while."""
        handle, identity = open_namespace(url)
        known = self._open.get(identity)
        if known is not None:
            os.close(handle)
            known.used = time.monotonic()
        else:
            foreign = self._open_ping and identity != self._own

            def enter() -> NetlinkSocket:
                if foreign:
                    _write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
                return NetlinkSocket()

            try:
                known = _Open(handle, identity, inside(handle, enter))
            except BaseException:
                os.close(handle)
                raise
            self._open[identity] = known
        return NamespaceAdapter(known, str(url))

    def join(self, near: Namespace, a: NewEnd, far: Namespace, b: NewEnd) -> tuple[int, int]:
        """Makes one veth pair with an end in each namespace. AlreadyExists for a taken name."""
        source, target = self._open[near.id], self._open[far.id]
        for _ in range(_TRIES):
            indexes = random.choice(_INDEXES), random.choice(_INDEXES)
            [code] = source.socket.send([codec.pair(a, indexes[0], b, indexes[1], target.handle)])
            if not code:
                return indexes
            if code not in (errno.EEXIST, errno.EBUSY):
                raise _refused(code, f"a veth pair {a.name!r} in {near.url} and {b.name!r} in {far.url}")
            for space, end in ((near, a), (far, b)):
                if space.link(name=end.name) is not None:
                    raise AlreadyExists(
                        f"interface {end.name!r} exists already in namespace {space.url}",
                        hint="ask for another interface name, or remove that interface",
                    )
            if a.name == b.name and near.id == far.id:
                raise AlreadyExists(
                    f"both ends of the connection would be called {a.name!r} in namespace {near.url}",
                    hint="give the client's and the endpoint's interface different names",
                )
        raise FailedPrecondition("no free interface index was found", hint="try again")

    def evict(self, before: float) -> float | None:
        """Closes sockets last used before that monotonic time; when the oldest of the others was used, or None."""
        for identity, one in list(self._open.items()):
            if one.used < before:
                del self._open[identity]
                one.close()
        return min((one.used for one in self._open.values()), default=None)

    def close(self) -> None:
        """Lets all namespaces go."""
        self.evict(float("inf"))


class NamespaceAdapter:
    """Implements the Namespace port for one open namespace."""

    __slots__ = ("_open", "url")

    def __init__(self, opened: _Open, url: str) -> None:
        self._open = opened
        self.url = url

    @property
    def id(self) -> NamespaceId:
        return self._open.id

    @property
    def handle(self) -> int:
        return self._open.handle

    @property
    def channel(self) -> NetlinkSocket:
        return self._open.socket

    def links(self) -> list[Link]:
        return [codec.link(body) for body in self._dump(codec.dump_links())]

    def link(self, *, name: str = "", index: int = 0) -> Link | None:
        if not name and not index:
            return None
        try:
            body = self.channel.get(codec.get_link(name=name, index=index))
        except Refused as error:
            raise _refused(error.errno or 0, f"to show interface {name or index} of {self.url}") from error
        return codec.link(body) if body is not None else None

    def wake(self, index: int) -> None:
        # Being asked for an interface makes the kernel look at its carrier; the answer is of no use.
        with contextlib.suppress(Refused):
            self.channel.get(codec.get_link(index=index))

    def observe(self, index: int, tables: range) -> Observed:
        link = self.link(index=index) if index else None
        if link is None:
            return Observed(rules=self._rules(tables))
        addresses = [codec.address(body) for body in self._dump(codec.dump_addresses(index))]
        routes = [codec.route(body) for family in (4, 6) for body in self._dump(codec.dump_routes(family, index))]
        near = [codec.neighbour(body) for body in self._dump(codec.dump_neighbours(index))]
        return Observed(
            link=link,
            addresses=frozenset(one for at, one in filter(None, addresses) if at == index),
            routes=frozenset(one for at, one in filter(None, routes) if at == index),
            neighbours=frozenset(one for at, one in filter(None, near) if at == index),
            rules=self._rules(tables),
        )

    def _dump(self, packet: bytearray) -> list[bytes]:
        try:
            return self.channel.dump(packet)
        except Refused as error:
            raise _refused(error.errno or 0, f"to show what is in {self.url}") from error

    def _rules(self, tables: range) -> frozenset[Rule]:
        if not tables:
            return frozenset()
        found = [codec.rule(body) for family in (4, 6) for body in self._dump(codec.dump_rules(family))]
        return frozenset(rule for ours, rule in filter(None, found) if ours and rule.table in tables)

    def apply(self, index: int, ops: Sequence[Op]) -> list[Failure]:
        failures: list[Failure] = []
        for start in range(0, len(ops), _BATCH):
            failures += self._batch(index, ops[start : start + _BATCH])
        again = [one.op for one in failures if _wants_ipv6(one)]
        if again and self._enable_ipv6(index):
            # routes of the refused addresses were refused with them
            failures = self._batch(index, [one.op for one in failures])
        return failures

    def _batch(self, index: int, ops: Sequence[Op]) -> list[Failure]:
        codes = self.channel.send([codec.encode(op, index) for op in ops])
        failures = []
        for op, code in zip(ops, codes, strict=True):
            if code == errno.EBUSY and isinstance(op, SetLink) and op.name is not None:
                # older kernels rename only what is down
                code = max(self.channel.send([codec.encode(one, index) for one in (SetLink(up=False), op)]))
                code = code or max(self.channel.send([codec.encode(SetLink(up=True), index)]))
            if code and not (code in _GONE and isinstance(op, Remove)) and not (code in _THERE and isinstance(op, Add)):
                failures.append(Failure(op, code, os.strerror(code)))
        return failures

    def _enable_ipv6(self, index: int) -> bool:
        link = self.link(index=index)
        if link is None:
            return False
        path = f"/proc/sys/net/ipv6/conf/{link.name}/disable_ipv6"
        return inside(self.handle, lambda: _write(path, "0"))

    def wait_reachable(self, addresses: Sequence[Address]) -> None:
        # IPv6 addresses get their local route from a work queue, even those without duplicate detection
        deadline, pause = time.monotonic() + _REACHABLE_WITHIN, 0.0001
        for one in addresses:
            while one.family == 6 and not self._is_local(one.ip) and time.monotonic() < deadline:
                time.sleep(pause)
                pause = min(2 * pause, 0.005)

    def _is_local(self, ip: str) -> bool:
        try:
            body = self.channel.get(codec.look_up(ip))
        except Refused:
            return False
        return body is not None and codec.is_local(body)

    def delete_link(self, index: int) -> bool:
        [code] = self.channel.send([codec.delete_link(index)])
        if code and code not in _GONE:
            raise _refused(code, f"to delete interface {index} of {self.url}")
        return not code


def _wants_ipv6(failure: Failure) -> bool:
    op = failure.op
    return (
        failure.errno in (errno.EACCES, errno.EPERM)
        and isinstance(op, Add)
        and isinstance(op.thing, Address)
        and op.thing.family == 6
    )


def _write(path: str, text: str) -> bool:
    """Whether a kernel setting could be written: a missing or read-only one is not worth failing for."""
    try:
        Path(path).write_text(text)
    except OSError:
        return False
    return True


def _refused(code: int, what: str) -> NsmError:
    text = f"the kernel refuses {what}: {os.strerror(code)}"
    if code in (errno.EPERM, errno.EACCES):
        return PermissionDenied(text, hint="run as root or with CAP_NET_ADMIN")
    if code == errno.EOPNOTSUPP:
        return FailedPrecondition(text, hint="this kernel lacks that kind of interface; `nsm doctor` lists what it has")
    if code == errno.EINVAL:
        return InvalidRequest(text, hint="check the interface's name and MTU")
    return FailedPrecondition(text, hint="see the kernel's log")
