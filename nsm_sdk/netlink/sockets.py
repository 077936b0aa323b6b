# SPDX-License-Identifier: Apache-2.0
"""Netlink sockets.

Does:  sends batches of messages and collects the answers, with one blocking socket in the namespace where it was made.
Place: under the kernel adapter, the watch and the probe.
State: a socket's sequence counter.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

from nsm_sdk.netlink import codec

_GET_STRICT_CHK = 12
_CAP_ACK = 10
_SOL_NETLINK = 270
_BUFFER = 1 << 18
_PART = 1 << 16
_ACK = 1 << 12
_PATIENCE = struct.pack("ll", 10, 0)


class Refused(OSError):
    """The kernel's answer to a message was an error."""


class NetlinkSocket:
    """One blocking NETLINK_ROUTE socket in the namespace where it was made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        # dumps filtered by the kernel, and error answers that do not carry the whole request back
        for option in (_GET_STRICT_CHK, _CAP_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        # the kernel answers before `send` returns; never wait for ever if one day it does not
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, packets: Sequence[bytearray]) -> list[int]:
        """Sends all in one call; the kernel does them in order and goes on after errors. Error numbers, 0 for done."""
        first = self._sequence + 1
        for packet in packets:
            self._sequence += 1
            # padding between the messages of one datagram
            packet += bytes(-len(packet) & 3)
            codec.number(packet, self._sequence)
        self._socket.send(b"".join(packets))
        answers: dict[int, int] = {}
        while len(answers) < len(packets):
            for kind, _, sequence, body in codec.split(self._socket.recv(_ACK)):
                if kind == codec.NLMSG_ERROR and first <= sequence <= self._sequence:
                    answers[sequence] = -int.from_bytes(body[:4], "little", signed=True)
        return [answers[first + at] for at in range(len(packets))]

    def get(self, packet: bytearray) -> bytes | None:
        """The one answer to a request without acknowledgement; None when there is no such thing."""
        self._sequence += 1
        codec.number(packet, self._sequence)
        self._socket.send(packet)
        while True:
            for kind, _, sequence, body in codec.split(self._socket.recv(_PART)):
                if sequence != self._sequence:
                    continue
                if kind != codec.NLMSG_ERROR:
                    return body
                code = -int.from_bytes(body[:4], "little", signed=True)
                if code in (errno.ENODEV, errno.ENOENT):
                    return None
                raise Refused(code, os.strerror(code))

    def dump(self, packet: bytearray) -> list[bytes]:
        """All answers to a dump; asked again when the kernel says that it changed meanwhile."""
        for _ in range(8):
            self._sequence += 1
            codec.number(packet, self._sequence)
            self._socket.send(packet)
            bodies, torn = self._collect()
            if not torn:
                return bodies
        return bodies

    def _collect(self) -> tuple[list[bytes], bool]:
        bodies: list[bytes] = []
        torn = False
        while True:
            for kind, flags, sequence, body in codec.split(self._socket.recv(_PART)):
                if sequence != self._sequence:
                    continue
                torn = torn or bool(flags & codec.DUMP_INTERRUPTED)
                if kind == codec.NLMSG_DONE:
                    return bodies, torn
                if kind == codec.NLMSG_ERROR:
                    code = -int.from_bytes(body[:4], "little", signed=True)
                    if code in (errno.ENODEV, errno.ENOENT):
                        return [], False
                    if code:
                        raise Refused(code, os.strerror(code))
                else:
                    bodies.append(body)
