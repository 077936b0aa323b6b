# SPDX-License-Identifier: Apache-2.0
"""Does a neighbour on the link answer?

Does:  asks by ARP (IPv4) or neighbour solicitation (IPv6) for the far address, or, where the connection has only a
       source, for its gateways and known neighbours. That works where pings are filtered, and needs no address of the
       far side that answers pings.
Place: for connections on one link, and for those without a destination address.
State: none; each check opens its own socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct

from nsm_sdk.heal.probes.probe import ALIVE, Inside, Probe, Target, Verdict, entering, here

ASKS = 4
"""Questions that one check sends at most."""
_ETH_ARP = 0x0806
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_SIOCGIFHWADDR = 0x8927
_SOLICIT, _ADVERT = 135, 136
_ICMP6_FILTER = 1


def arp_question(mac: bytes, source: str, wanted: str) -> bytes:
    """Who has `wanted`? Tell `source`."""
    src = socket.inet_aton(source)
    return _ARP.pack(1, 0x0800, 6, 4, 1, mac, src, bytes(6), socket.inet_aton(wanted))


def arp_answers(packet: bytes, wanted: str) -> bool:
    """Whether `packet` says that somebody has `wanted`."""
    if len(packet) < _ARP.size:
        return False
    _, protocol, _, _, operation, _, sender, _, _ = _ARP.unpack_from(packet)
    return operation == 2 and protocol == 0x0800 and bytes(sender) == socket.inet_aton(wanted)


def solicitation(mac: bytes, wanted: str) -> bytes:
    """Neighbour solicitation; the kernel fills in the checksum."""
    target = socket.inet_pton(socket.AF_INET6, wanted)
    return struct.pack(">BBHI", _SOLICIT, 0, 0, 0) + target + b"\x01\x01" + mac


def advertises(packet: bytes, wanted: str) -> bool:
    """Whether `packet` is a neighbour advertisement for `wanted`."""
    return len(packet) >= 24 and packet[0] == _ADVERT and packet[8:24] == socket.inet_pton(socket.AF_INET6, wanted)


def solicited_node(wanted: str) -> str:
    """The multicast address at which the owner of `wanted` listens."""
    last = socket.inet_pton(socket.AF_INET6, wanted)[13:]
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + last)


class Neighbour(Probe):
    """Ask for each far address on the link; each must be answered."""

    def __init__(self, *, asks: int = ASKS, inside: Inside = here) -> None:
        self.asks = max(asks, 1)
        self._inside = entering(inside)

    def why_not(self, target: Target) -> str:
        if not target.interface:
            return "the connection has no interface"
        return "" if _wanted(target) else "the connection names no neighbour"

    async def check(self, target: Target, timeout: float) -> Verdict:
        asked = [self._ask(target, source, wanted, timeout) for source, wanted in _wanted(target)]
        for verdict in await asyncio.gather(*asked):
            if not verdict.alive:
                return verdict
        return ALIVE

    async def _ask(self, target: Target, source: str, wanted: str, timeout: float) -> Verdict:
        v6 = ":" in wanted
        opener = _open_nd if v6 else _open_arp
        try:
            channel, mac = self._inside(target.namespace, lambda: opener(target.interface))
        except PermissionError:
            return Verdict(None, "asking for neighbours needs CAP_NET_RAW")
        except OSError as error:
            return Verdict(False, f"link {target.interface}: {error.strerror or error}")
        with channel:
            return await self._exchange(channel, mac, target, source, wanted, timeout)

    async def _exchange(
        self, channel: socket.socket, mac: bytes, target: Target, source: str, wanted: str, timeout: float
    ) -> Verdict:
        loop = asyncio.get_running_loop()
        v6 = ":" in wanted
        until = loop.time() + timeout
        why = f"nobody on link {target.interface} has {wanted}"
        for ask in range(self.asks):
            try:
                if v6:
                    scope = channel.getsockname()[3] if len(channel.getsockname()) > 3 else 0
                    channel.sendto(solicitation(mac, wanted), (solicited_node(wanted), 0, 0, scope))
                else:
                    question = arp_question(mac, source, wanted)
                    channel.sendto(question, (target.interface, _ETH_ARP, 0, 1, b"\xff" * 6))
            except OSError as error:
                why = f"link {target.interface}: {error.strerror or error}"
            left = max((until - loop.time()) / (self.asks - ask), 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    while True:
                        packet = await loop.sock_recv(channel, 2048)
                        if advertises(packet, wanted) if v6 else arp_answers(packet, wanted):
                            return ALIVE
        return Verdict(False, why)


def _wanted(target: Target) -> list[tuple[str, str]]:
    """(source, far address) to ask for; gateways stand for everything behind them."""
    found: dict[str, str] = {}
    for source in target.sources:
        far = [gateway for gateway in target.gateways if (":" in gateway) == (":" in source)]
        far = far or [dst for src, dst in target.pairs if src == source]
        for address in far:
            found.setdefault(address, source)
    return [(source, address) for address, source in found.items()]


def _open_arp(interface: str) -> tuple[socket.socket, bytes]:
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    channel = socket.socket(socket.AF_PACKET, kind, 0)
    try:
        channel.bind((interface, _ETH_ARP))
        mac: bytes = channel.getsockname()[4]
    except BaseException:
        channel.close()
        raise
    return channel, mac


def _open_nd(interface: str) -> tuple[socket.socket, bytes]:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    channel = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
    try:
        index = socket.if_nametoindex(interface)
        blocked = [0xFFFFFFFF] * 8
        blocked[_ADVERT // 32] &= ~(1 << (_ADVERT % 32))
        channel.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
        # A solicitation from further away is not believed.
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        answer = fcntl.ioctl(channel, _SIOCGIFHWADDR, struct.pack("=16s24x", interface.encode()[:15]))
    except BaseException:
        channel.close()
        raise
    return channel, answer[18:24]
