# SPDX-License-Identifier: Apache-2.0
"""Namespaces by URL, and netlink sockets inside them.

Does:  turns `file:///run/netns/NAME`, `/proc/PID/ns/net` or a descriptor into an open namespace file, checked to be
       one; enters it in a thread that ends afterwards, to open a socket or run a function there; sends batches of
       messages and collects the answers.
Place: under the kernel adapter, the watch and the probe.
State: a socket's sequence counter.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from nsm_sdk.errors import FailedPrecondition, Internal, InvalidRequest, NsmError, PermissionDenied
from nsm_sdk.mechanisms.model import NamespaceId
from nsm_sdk.netlink import codec
from nsm_sdk.netlink.libc import CLONE_NEWNET, setns

T = TypeVar("T")
_NS_GET_NSTYPE = 0xB703
_SELF = re.compile(r"/proc/(thread-self|self)(/|$)")
_GET_STRICT_CHK = 12
_CAP_ACK = 10
_SOL_NETLINK = 270
_BUFFER = 1 << 18
_PART = 1 << 16
_ACK = 1 << 12
_PATIENCE = struct.pack("ll", 10, 0)
_HINT = "give the namespace as file:///run/netns/NAME or file:///proc/PID/ns/net"


def namespace_path(url: str) -> str:
    """The path in a namespace's URL. InvalidRequest for one that means nothing in another process."""
    path = url
    if "://" in url:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise InvalidRequest(f"{url[:120]!r} is not a URL", hint=_HINT) from None
        if parts.scheme == "inode":
            raise FailedPrecondition(
                f"namespace {url[:120]!r} is known by inode only and no descriptor came with it", hint=_HINT
            )
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise InvalidRequest(f"{url[:120]!r} does not name a file on this machine", hint=_HINT)
        path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(f"{url[:120]!r} does not name a network namespace", hint=_HINT)
    if _SELF.match(os.path.normpath(path)):
        raise InvalidRequest(f"{url[:120]!r} means a different namespace in each process", hint=_HINT)
    return path


def open_namespace(url: str | int) -> tuple[int, NamespaceId]:
    """An open descriptor of the namespace (the caller closes it) and its identity."""
    if isinstance(url, int):
        return _checked(os.dup(url), f"descriptor {url}")
    path = namespace_path(url)
    try:
        # a look first, without opening: a peer may name a pipe or a device
        looked = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(looked).st_mode):
                raise InvalidRequest(f"{url[:120]!r} is not a network namespace", hint=_HINT)
            handle = os.open(f"/proc/thread-self/fd/{looked}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(looked)
    except PermissionError:
        raise PermissionDenied(
            f"namespace {url[:120]!r} may not be opened by this program", hint="run it as root, or as that pod's owner"
        ) from None
    except OSError as error:
        raise FailedPrecondition(
            f"namespace {url[:120]!r} is gone: {error.strerror}", hint="see that its pod or process is still there"
        ) from None
    return _checked(handle, url)


def _checked(handle: int, url: str) -> tuple[int, NamespaceId]:
    try:
        if fcntl.ioctl(handle, _NS_GET_NSTYPE) != CLONE_NEWNET:
            raise OSError(errno.EINVAL, "another kind of namespace")
    except OSError:
        os.close(handle)
        raise FailedPrecondition(
            f"{url[:120]!r} is not a network namespace (or no longer)", hint="see that its pod is still there"
        ) from None
    info = os.fstat(handle)
    return handle, NamespaceId(dev=info.st_dev, ino=info.st_ino)


def inside(handle: int, fn: Callable[[], T]) -> T:
    """Runs `fn` in the namespace of descriptor `handle`, in a thread of its own that ends with it.

    A pooled thread would carry the foreign namespace into its next job; a forked helper takes ten milliseconds.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            setns(handle, CLONE_NEWNET)
            result.append(fn())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=enter, name="nsm-netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise _explain(failure[0]) from failure[0]
    return result[0]


def _explain(error: BaseException) -> BaseException:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            f"a network namespace may not be entered: {error.strerror}", hint="run as root or with CAP_SYS_ADMIN"
        )
    return error if isinstance(error, NsmError) or not isinstance(error, OSError) else Internal(str(error))


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
