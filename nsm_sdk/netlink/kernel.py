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
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NsmError, PermissionDenied
from nsm_sdk.mechanisms.clients import has_processes
from nsm_sdk.mechanisms.model import Add, Address, Failure, Link, NamespaceId, Observed, Op, Remove, Rule, SetLink
from nsm_sdk.mechanisms.ports import Namespace, NewEnd
from nsm_sdk.netlink import answers, requests
from nsm_sdk.netlink.codec import RT
from nsm_sdk.netlink.namespaces import inside, open_namespace
from nsm_sdk.netlink.sockets import NetlinkSocket, Refused

_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}
_THERE = {errno.EEXIST}
_BATCH = 64
_TRIES = 8
_REACHABLE_WITHIN = 1.0
_LOCAL_PRIORITY = 100
_FORWARDING = {"forwarding": "1", "accept_local": "1", "rp_filter": "0", "proxy_arp": "1", "send_redirects": "0"}
"""Each interface has got an address of what is behind the other: answer for it, and take what comes from it."""
_BRIDGED = 1
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

    def occupied(self, dev: int, ino: int) -> bool:
        """Whether a process, or a thread of one, is in that namespace."""
        return has_processes(dev, ino)

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
            [code] = source.socket.send([requests.pair(a, indexes[0], b, indexes[1], target.handle)])
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
        return [answers.link(body) for body in self._dump(requests.dump_links())]

    def link(self, *, name: str = "", index: int = 0) -> Link | None:
        if not name and not index:
            return None
        try:
            body = self.channel.get(requests.get_link(name=name, index=index))
        except Refused as error:
            raise _refused(error.errno or 0, f"to show interface {name or index} of {self.url}") from error
        return answers.link(body) if body is not None else None

    def wake(self, index: int) -> None:
        # Being asked for an interface makes the kernel look at its carrier; the answer is of no use.
        with contextlib.suppress(Refused):
            self.channel.get(requests.get_link(index=index))

    def observe(self, index: int, tables: range) -> Observed:
        link = self.link(index=index) if index else None
        if link is None:
            return Observed(rules=self._rules(tables))
        addresses = [answers.address(body) for body in self._dump(requests.dump_addresses(index))]
        routes = [answers.route(body) for family in (4, 6) for body in self._dump(requests.dump_routes(family, index))]
        near = [answers.neighbour(body) for body in self._dump(requests.dump_neighbours(index))]
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
        found = [answers.rule(body) for family in (4, 6) for body in self._dump(requests.dump_rules(family))]
        return frozenset(rule for ours, rule in filter(None, found) if ours and rule.table in tables)

    def apply(self, index: int, ops: Sequence[Op]) -> list[Failure]:
        others = _Others.on(self, index) if any(map(_takes_along, ops)) else None
        failures = self._steps(index, ops, others)
        again = [one.op for one in failures if _wants_ipv6(one)]
        if again and self._enable_ipv6(index):
            # routes of the refused addresses were refused with them
            failures = self._steps(index, [one.op for one in failures], None)
        if others is not None:
            others.mend(index, {op.thing.ip for op in ops if isinstance(op, Remove) and isinstance(op.thing, Address)})
        return failures

    def _steps(self, index: int, ops: Sequence[Op], others: _Others | None) -> list[Failure]:
        """All in one call, so that hardly a moment lies between what belongs together."""
        steps: list[tuple[Op | None, bytearray]] = [(op, requests.encode(op, index)) for op in ops]
        if others is not None:
            end = max(at for at, op in enumerate(ops) if _takes_along(op) or _is_address(op)) + 1
            steps[end:end] = [(None, packet) for packet in others.again()]
            come = {op.thing.ip for op in ops if isinstance(op, Add) and isinstance(op.thing, Address)}
            for at, op in reversed(list(enumerate(ops))):
                thing = op.thing if isinstance(op, Remove) else None
                if isinstance(thing, Address) and thing.family == 6 and thing.ip in come:
                    steps.insert(at, (None, requests.look_after(thing, index, _BRIDGED)))
            if any(_has_network(op) for op in ops):
                self._promote(index)
        failures: list[Failure] = []
        for start in range(0, len(steps), _BATCH):
            failures += self._batch(index, steps[start : start + _BATCH])
        return failures

    def _batch(self, index: int, steps: Sequence[tuple[Op | None, bytearray]]) -> list[Failure]:
        codes = self.channel.send([packet for _, packet in steps])
        failures = []
        for (op, _), code in zip(steps, codes, strict=True):
            if code == errno.EBUSY and isinstance(op, SetLink) and op.name is not None:
                # older kernels rename only what is down
                code = max(self.channel.send([requests.encode(one, index) for one in (SetLink(up=False), op)]))
                code = code or max(self.channel.send([requests.encode(SetLink(up=True), index)]))
            if op is None or not code or (code in _GONE and isinstance(op, Remove)):
                continue
            if not (code in _THERE and isinstance(op, Add)):
                failures.append(Failure(op, code, os.strerror(code)))
        return failures

    def _promote(self, index: int) -> None:
        """Has the other addresses of a network stay when the first of them goes."""
        link = self.link(index=index)
        if link is not None:
            path = f"/proc/sys/net/ipv4/conf/{link.name}/promote_secondaries"
            inside(self.handle, lambda: _write(path, "1"))

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
            body = self.channel.get(requests.look_up(ip))
        except Refused:
            return False
        return body is not None and answers.is_local(body)

    def forward(self, names: Sequence[str]) -> None:
        for family in (4, 6):
            self._own_addresses_later(family)
        settings = {"net/ipv6/conf/all/forwarding": "1"}
        for name in names:
            settings |= {f"net/ipv4/conf/{name}/{key}": value for key, value in _FORWARDING.items()}
            settings[f"net/ipv4/neigh/{name}/proxy_delay"] = "0"

        def write() -> list[str]:
            # The stricter of both holds, and strict says no to addresses that are this namespace's own as well.
            everywhere = Path("/proc/sys/net/ipv4/conf/all/rp_filter")
            if everywhere.read_text().strip() == "1":
                settings["net/ipv4/conf/all/rp_filter"] = "2"
            return [key for key, value in settings.items() if not _has(f"/proc/sys/{key}", value)]

        refused = [key for key in inside(self.handle, write) if key.startswith("net/ipv4/conf")]
        if refused:
            raise PermissionDenied(
                f"the kernel setting {refused[0]} of {self.url} cannot be written", hint="mount /proc/sys writable"
            )

    def _own_addresses_later(self, family: int) -> None:
        """Let policy rules of a priority below `_LOCAL_PRIORITY` go before the table of this namespace's addresses."""
        found = [rule for _, rule in filter(None, map(answers.rule, self._dump(requests.dump_rules(family))))]
        early = [one for one in found if one.table == RT.TABLE_LOCAL and one.priority < _LOCAL_PRIORITY]
        if not early:
            return
        later = Rule(family=family, priority=_LOCAL_PRIORITY, table=RT.TABLE_LOCAL)
        # At no time is there none: without it nothing would reach this namespace.
        ops: list[Op] = [Add(later), *(Remove(one) for one in early)]
        for failure in self.apply(0, ops):
            raise _refused(failure.errno, f"to look at policy rules of {self.url} before its own addresses")

    def delete_link(self, index: int) -> bool:
        [code] = self.channel.send([requests.delete_link(index)])
        if code and code not in _GONE:
            raise _refused(code, f"to delete interface {index} of {self.url}")
        return not code


class _Others:
    """What others have made on a link, as the kernel has shown it, to be made again where the kernel takes it along.

    It takes all IPv4 routes and neighbours with the last IPv4 address of a link, the other addresses of a network with
    the first, a preferred source from routes with that address, and all neighbours with the MAC.
    """

    __slots__ = ("_addresses", "_channel", "_neighbours", "_routes")

    def __init__(
        self, channel: NetlinkSocket, addresses: list[bytes], routes: list[bytes], neighbours: list[bytes]
    ) -> None:
        self._channel = channel
        self._addresses = addresses
        self._routes = routes
        self._neighbours = neighbours

    @classmethod
    def on(cls, namespace: NamespaceAdapter, index: int) -> _Others:
        """What there is now."""
        dump = namespace.channel.dump
        return cls(
            namespace.channel,
            [body for body in dump(requests.dump_addresses(index)) if answers.address_of_others(body, index)],
            [
                body
                for family in (4, 6)
                for body in dump(requests.dump_routes(family, index))
                if answers.route_of_others(body)
            ],
            [body for body in dump(requests.dump_neighbours(index)) if answers.neighbour_of_others(body, index)],
        )

    def again(self) -> list[bytearray]:
        """Makes what may be missing; what is there stays as it is."""
        # a kernel leaves IPv6 routes alone, and one that is made twice loses its expiry
        return [
            *map(requests.again_address, self._addresses),
            *(requests.again_route(body) for body in self._routes if body[0] == socket.AF_INET),
            *map(requests.again_neighbour, self._neighbours),
        ]

    def mend(self, index: int, removed: set[str]) -> None:
        """Deals with routes that cannot be as they were, after the addresses `removed` have gone or come again."""
        there: set[bytes] = set()
        if any(body[0] == socket.AF_INET6 for body in self._routes):
            there = {bytes(requests.again_route(body)) for body in self._channel.dump(requests.dump_routes(6, index))}
        for body in self._routes:
            if bytes(requests.again_route(body)) in there:
                continue
            source = answers.route_source(body)
            if source in removed and self._make(requests.again_route(body, replaces=":" in source)):
                continue
            # its gateway may be in no network of the link any more, its source no address of this machine
            for keeps, onlink in ((True, False), (True, True), (False, False), (False, True)):
                if self._make(requests.again_route(body, source=keeps, onlink=onlink)):
                    break

    def _make(self, packet: bytearray) -> bool:
        [code] = self._channel.send([packet])
        return not code or code in _THERE


def _is_address(op: Op) -> bool:
    return isinstance(op, (Add, Remove)) and isinstance(op.thing, Address)


def _takes_along(op: Op) -> bool:
    """Whether a kernel may remove more than it is asked to."""
    if isinstance(op, SetLink):
        return op.mac is not None or op.name is not None
    return isinstance(op, Remove) and _is_address(op)


def _has_network(op: Op) -> bool:
    thing = op.thing if isinstance(op, Remove) else None
    return isinstance(thing, Address) and thing.family == 4 and thing.prefix < thing.bits


def _wants_ipv6(failure: Failure) -> bool:
    op = failure.op
    return (
        failure.errno in (errno.EACCES, errno.EPERM)
        and isinstance(op, Add)
        and isinstance(op.thing, Address)
        and op.thing.family == 6
    )


def _has(path: str, text: str) -> bool:
    """Whether a kernel setting is so, after writing it if it was not."""
    with contextlib.suppress(OSError):
        if Path(path).read_text().strip() == text:
            return True
    return _write(path, text)


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
