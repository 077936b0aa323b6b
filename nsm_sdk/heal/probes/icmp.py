# SPDX-License-Identifier: Apache-2.0
"""Ping.

Does:  sends an ICMP echo from each source to each destination of its family; within the time of a check another one
       follows only while none was answered. One socket per namespace and family serves all connections: it works
       without raw-socket rights where ping groups allow, and says so where neither is allowed.
Place: the usual check of kernel connections.
State: the sockets, and the echoes that wait for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import struct
from collections.abc import Callable

from nsm_sdk.core import Runtime, Timer
from nsm_sdk.errors import NsmError
from nsm_sdk.heal.probes.probe import ALIVE, Cancel, Inside, Probe, Target, Tell, Verdict, entering, here, identity

logger = logging.getLogger("nsm_sdk.heal")

ECHOES = 4
"""Echoes that one check sends at most to each destination."""
_REQUEST: dict[int, int] = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: dict[int, int] = {socket.AF_INET: 0, socket.AF_INET6: 129}
_HEAD = struct.Struct(">BBHHH")
_TOKEN = struct.Struct(">Q")
_ICMP_FILTER, _SOL_RAW, _ICMP6_FILTER = 1, 255, 1
_AT_ONCE = 64
_BUFFER = 1 << 20


def checksum(packet: bytes) -> int:
    """The internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(family: int, identity: int, sequence: int, data: bytes) -> bytes:
    """An echo request with an even number of bytes of `data`; the kernel fills in the checksum of ICMPv6."""
    head = _HEAD.pack(_REQUEST[family], 0, 0, identity, sequence)
    if family == socket.AF_INET6:
        return head + data
    return head[:2] + checksum(head + data).to_bytes(2, "big") + head[4:] + data


def echo_reply(family: int, packet: bytes) -> tuple[int, int, bytes] | None:
    """Identity, sequence and data of an echo reply as a raw socket reads it; None for any other packet."""
    start = (packet[0] & 0xF) * 4 if family == socket.AF_INET and packet else 0
    if len(packet) < start + _HEAD.size:
        return None
    kind, _, _, identity, sequence = _HEAD.unpack_from(packet, start)
    return (identity, sequence, packet[start + _HEAD.size :]) if kind == _REPLY[family] else None


def open_socket(family: int) -> tuple[socket.socket, bool]:
    """An ICMP socket, and whether it is a raw one. PermissionError where neither kind is allowed."""
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        channel, raw = socket.socket(family, socket.SOCK_DGRAM | flags, protocol), False
    except OSError:
        channel, raw = socket.socket(family, socket.SOCK_RAW | flags, protocol), True
    try:
        # What queues up while the loop is busy must not look like silence.
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        if raw and family == socket.AF_INET:
            channel.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _REPLY[socket.AF_INET]) & 0xFFFFFFFF))
        elif raw:
            blocked = [0xFFFFFFFF] * 8
            blocked[_REPLY[socket.AF_INET6] // 32] &= ~(1 << (_REPLY[socket.AF_INET6] % 32))
            channel.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
    except BaseException:
        channel.close()
        raise
    return channel, raw


class _Way:
    """One (source, destination), with what it takes to send there."""

    __slots__ = ("address", "control", "text")

    def __init__(self, family: int, src: str, dst: str) -> None:
        self.text = f"{src} > {dst}"
        if family == socket.AF_INET:
            info = struct.pack("=i4s4s", 0, socket.inet_pton(family, src), bytes(4))
            self.control = [(socket.IPPROTO_IP, 8, info)]
            self.address: tuple[str, int] | tuple[str, int, int, int] = (dst, 0)
        else:
            info = struct.pack("=16si", socket.inet_pton(family, src), 0)
            self.control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]
            self.address = (dst, 0, 0, 0)


class Channel:
    """One socket and who waits for answers on it."""

    def __init__(self, channel: socket.socket, family: int, raw: bool, namespace: tuple[int, int] = (0, 0)) -> None:
        self.namespace = namespace
        self.pending: dict[int, Callable[[], None]] = {}
        self.raw = raw
        self._socket = channel
        self._family = family
        self._ip_header = raw and family == socket.AF_INET
        self._reply = _REPLY[family]
        self._identity = secrets.randbits(16)
        self._secret = secrets.randbits(32) << 32
        self._count = 0
        self._buffer = bytearray(2048)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.fileno(), self._readable)

    def close(self) -> None:
        """Nobody is answered any more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.pending.clear()

    def send(self, way: _Way, answered: Callable[[], None]) -> int:
        """Send an echo; answers its token. OSError when it cannot go out."""
        self._count = (self._count + 1) & 0xFFFFFFFF
        token = self._secret | self._count
        packet = echo_request(self._family, self._identity, self._count & 0xFFFF, _TOKEN.pack(token))
        self.pending[token] = answered
        try:
            self._socket.sendmsg((packet,), way.control, 0, way.address)
        except OSError:
            del self.pending[token]
            raise
        return token

    def _readable(self) -> None:
        buffer = self._buffer
        for _ in range(_AT_ONCE):
            try:
                size = self._socket.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                # The socket hands over errors of earlier sends; those echoes just stay unanswered.
                logger.debug("icmp: %s", error)
                continue
            start = (buffer[0] & 0xF) * 4 if self._ip_header else 0
            if size < start + 16 or buffer[start] != self._reply:
                continue
            answered = self.pending.pop(_TOKEN.unpack_from(buffer, start + 8)[0], None)
            if answered is not None:
                answered()


class _Check:
    """One check of one connection."""

    __slots__ = ("_echoes", "_error", "_gap", "_open", "_probe", "_runtime", "_tell", "_timer", "_tokens")

    def __init__(
        self, probe: Icmp, runtime: Runtime, ways: list[tuple[Channel, _Way]], timeout: float, tell: Tell
    ) -> None:
        self._probe = probe
        self._runtime = runtime
        self._open = dict(enumerate(ways))
        self._tell: Tell | None = tell
        self._echoes = probe.echoes
        self._gap = timeout / probe.echoes
        self._tokens: list[tuple[Channel, int]] = []
        self._error = ""
        self._timer: Timer | None = None
        self._send()

    def _send(self) -> None:
        self._timer = self._runtime.after(self._gap, self._silent)
        self._echoes -= 1
        for number, (channel, way) in list(self._open.items()):
            try:
                token = channel.send(way, lambda number=number: self._answered(number))  # type: ignore[misc]
            except OSError as error:
                self._error = f"{way.text}: {error.strerror or error}"
            else:
                self._tokens.append((channel, token))

    def _answered(self, number: int) -> None:
        self._open.pop(number, None)
        if not self._open:
            self._end(ALIVE)

    def _silent(self) -> None:
        if self._echoes > 0:
            self._send()
            return
        silent = ", ".join(way.text for _, way in self._open.values())
        self._end(Verdict(False, self._error or f"no answer to pings {silent}"))

    def _end(self, verdict: Verdict) -> None:
        tell = self._tell
        self.cancel()
        if tell is not None:
            tell(verdict)

    def cancel(self) -> None:
        """Wait for no answer any more."""
        self._tell = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for channel, token in self._tokens:
            channel.pending.pop(token, None)
        self._tokens.clear()


class Icmp(Probe):
    """Ping every source x destination pair of one family; each must be answered.

    `strict`: a connection without such a pair cannot be checked; else it counts as alive, as upstream has it.
    """

    def __init__(self, *, echoes: int = ECHOES, strict: bool = False, inside: Inside = here) -> None:
        self.echoes = max(echoes, 1)
        self.strict = strict
        self._inside = entering(inside)
        self._channels: dict[tuple[str | int, int], Channel] = {}
        self._ways: dict[tuple[str, str], _Way] = {}
        self._refused: dict[tuple[str | int, int], str] = {}

    async def stop(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._ways.clear()
        self._refused.clear()

    def why_not(self, target: Target) -> str:
        if not target.pairs:
            return "there is no pair of addresses to ping" if self.strict else ""
        for family in {_family(src) for src, _ in target.pairs}:
            why = self._refused.get((target.namespace, family), "")
            if not why:
                try:
                    self._channel(target.namespace, family)
                except PermissionError:
                    why = "ping needs CAP_NET_RAW, or a group of this process within net.ipv4.ping_group_range"
                    self._refused[target.namespace, family] = why
                except (OSError, NsmError) as error:
                    # The namespace may come back: this is no verdict for good.
                    return f"ping: {error}"
            if why:
                return why
        return ""

    def begin(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel:
        try:
            ways = [(self._channel(target.namespace, _family(src)), self._way(src, dst)) for src, dst in target.pairs]
        except (OSError, NsmError) as error:
            # A namespace that is gone cannot carry anything; lack of rights says nothing.
            alive = None if isinstance(error, PermissionError) else False
            verdict = Verdict(alive, f"ping: {error}")
            return runtime.after(0.0, lambda: tell(verdict)).cancel
        if not ways:
            return runtime.after(0.0, lambda: tell(Verdict(True, "no pair of addresses to ping"))).cancel
        return _Check(self, runtime, ways, timeout, tell).cancel

    def _way(self, src: str, dst: str) -> _Way:
        way = self._ways.get((src, dst))
        if way is None:
            if len(self._ways) > 65536:
                self._ways.clear()
            way = self._ways[src, dst] = _Way(_family(src), src, dst)
        return way

    def _channel(self, namespace: str | int, family: int) -> Channel:
        channel = self._channels.get((namespace, family))
        if channel is not None and namespace != "":
            channel = self._still(channel, namespace, family)
        if channel is None:
            now = identity(namespace)
            opened, raw = self._inside(namespace, lambda: open_socket(family))
            channel = self._channels[namespace, family] = Channel(opened, family, raw, now)
        return channel

    def _still(self, channel: Channel, namespace: str | int, family: int) -> Channel | None:
        """The channel, if the namespace is the one it was opened in. OSError when that is gone."""
        try:
            if identity(namespace) == channel.namespace:
                return channel
        except OSError:
            self._drop(channel, namespace, family)
            raise
        self._drop(channel, namespace, family)
        return None

    def _drop(self, channel: Channel, namespace: str | int, family: int) -> None:
        del self._channels[namespace, family]
        channel.close()


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ping_allowed(family: int = socket.AF_INET) -> bool:
    """Whether this process may ping at all."""
    with contextlib.suppress(OSError):
        open_socket(family)[0].close()
        return True
    return False
