# SPDX-License-Identifier: Apache-2.0
"""Is the interface there, up, with carrier and addresses?

Does:  looks when asked, and whenever the kernel says that a link or an address has changed: a link that goes down is
       seen within milliseconds, and nothing is polled.
Place: beside a ping, which sees what is further away.
State: one stream of events per namespace, while somebody follows it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import socket
import struct
from collections.abc import Callable

import anyio

from nsm_sdk.core import Runtime, Timer
from nsm_sdk.errors import NsmError
from nsm_sdk.heal.probes.probe import (
    ALIVE,
    Cancel,
    Inside,
    LinkEvent,
    LinkEvents,
    Probe,
    Target,
    Tell,
    Verdict,
    entering,
    here,
    url_of,
)

logger = logging.getLogger("nsm_sdk.heal")

SETTLE = 0.01
"""Seconds after an event before the link is looked at: repairing takes addresses off and puts them back."""
AGAIN = 1.0
"""Seconds before a stream of events that ended is opened again."""
_SIOCGIFFLAGS = 0x8913
_SIOCETHTOOL, _GLINK = 0x8946, 0x0A
_UP, _RUNNING = 0x1, 0x40
_TROUBLE = frozenset({"down", "deleted", "address-removed", "lost"})


def look(interface: str, sources: tuple[str, ...]) -> str:
    """What is wrong with the interface, in the present namespace; empty when nothing is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            answer = fcntl.ioctl(channel, _SIOCGIFFLAGS, struct.pack("=16sH14x", interface.encode()[:15], 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return f"link {interface} is gone"
            raise
        (flags,) = struct.unpack_from("=H", answer, 16)
        if not flags & _UP:
            return f"link {interface} is down"
        if not _has_carrier(channel, interface, bool(flags & _RUNNING)):
            return f"link {interface} has no carrier"
    for source in sources:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.bind((source, 0))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and not _tentative(source):
                    return f"address {source} is not on link {interface} any more"
    return ""


def _has_carrier(channel: socket.socket, interface: str, running: bool) -> bool:
    """The kernel sets the flag "running" up to a second late; the driver knows at once, where it can be asked."""
    value = ctypes.create_string_buffer(struct.pack("=II", _GLINK, 0), 8)
    asked = struct.pack("@16sP16x", interface.encode()[:15], ctypes.addressof(value))
    try:
        fcntl.ioctl(channel, _SIOCETHTOOL, asked)
    except OSError:
        return running
    return bool(struct.unpack("=II", value.raw)[1])


def _tentative(source: str) -> bool:
    """An IPv6 address cannot be bound while the kernel looks for duplicates, but it is there."""
    if ":" not in source:
        return False
    packed = socket.inet_pton(socket.AF_INET6, source).hex()
    try:
        with open("/proc/thread-self/net/if_inet6") as table:
            return any(line.startswith(packed) for line in table)
    except OSError:
        return True


class _Stream:
    """Events of one namespace, for all who follow it."""

    def __init__(self, namespace: str | int) -> None:
        self.namespace = namespace
        self.followers: dict[int, tuple[Target, Callable[[], None]]] = {}
        self.scope: anyio.CancelScope | None = None


class Carrier(Probe):
    """`links` is where events come from; without, the interface is only looked at when asked."""

    def __init__(self, *, links: LinkEvents | None = None, inside: Inside = here, settle: float = SETTLE) -> None:
        self.settle = settle
        self._links = links
        self._inside = entering(inside)
        self._streams: dict[str | int, _Stream] = {}
        self._count = 0

    async def stop(self) -> None:
        for stream in self._streams.values():
            if stream.scope is not None:
                stream.scope.cancel()
        self._streams.clear()

    def why_not(self, target: Target) -> str:
        return "" if target.interface else "the connection has no interface"

    def look(self, target: Target) -> Verdict:
        """How the interface is now."""
        try:
            trouble = self._inside(target.namespace, lambda: look(target.interface, target.sources))
        except (OSError, NsmError) as error:
            return Verdict(None if isinstance(error, PermissionError) else False, str(error))
        return Verdict(False, trouble, passing=trouble.startswith("address ")) if trouble else ALIVE

    async def check(self, target: Target, timeout: float) -> Verdict:
        return self.look(target)

    def tick(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel | None:
        return None if self._links is not None else self.begin(runtime, target, timeout, tell)

    def follow(self, runtime: Runtime, target: Target, tell: Tell) -> Cancel | None:
        if self._links is None:
            return None
        self._count += 1
        number = self._count
        stream = self._streams.get(target.namespace)
        if stream is None:
            stream = self._streams[target.namespace] = _Stream(target.namespace)
        timer: Timer | None = None

        def looked() -> None:
            nonlocal timer
            timer = None
            tell(self.look(target))

        def changed() -> None:
            nonlocal timer
            if timer is None:
                timer = runtime.after(self.settle, looked)

        def cancel() -> None:
            if timer is not None:
                timer.cancel()
            self._leave(stream, number)

        stream.followers[number] = (target, changed)
        if stream.scope is None:
            stream.scope = runtime.spawn(lambda: self._read(stream), "follow links")
        return cancel

    def _leave(self, stream: _Stream, number: int) -> None:
        stream.followers.pop(number, None)
        if not stream.followers and self._streams.get(stream.namespace) is stream:
            del self._streams[stream.namespace]
            if stream.scope is not None:
                stream.scope.cancel()

    async def _read(self, stream: _Stream) -> None:
        assert self._links is not None
        while True:
            try:
                watch = await self._links(url_of(stream.namespace))
                try:
                    # What happened before the stream was open was not told.
                    self._changed(stream, None)
                    async for event in watch:
                        if event.kind in _TROUBLE:
                            self._changed(stream, event)
                finally:
                    with anyio.CancelScope(shield=True):
                        await watch.aclose()
            except (OSError, NsmError) as error:
                logger.info("link events of %r: %s", stream.namespace or "our own namespace", error)
                self._changed(stream, None)
            await anyio.sleep(AGAIN)

    def _changed(self, stream: _Stream, event: LinkEvent | None) -> None:
        for target, changed in list(stream.followers.values()):
            if event is None or event.kind == "lost" or concerns(event, target):
                changed()


def concerns(event: LinkEvent, target: Target) -> bool:
    """Whether the event may be about the target's interface or addresses."""
    if event.kind.startswith("address"):
        return event.address.partition("/")[0] in target.sources
    return event.name == target.interface
