# SPDX-License-Identifier: Apache-2.0
"""Places to listen at, before a server takes them.

Does:  gives a clear error for an address that is in use, not ours, or forbidden; binds Unix sockets beside their final
       name and links them into place, so that a socket file is never wider than asked, never taken from somebody who
       answers, and never removed by a server that has been replaced.
Place: the gRPC listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nsm_sdk.api import Target
from nsm_sdk.api.addresses import MAX_SOCKET_PATH, SHORTER
from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NsmError, PermissionDenied

BACKLOG = 1024
"""Callers that may wait to be accepted."""


ROOM = 60
"""Bytes that a socket's path gets below a temporary folder."""


def short_folder() -> str:
    """The folder of temporary files, or /tmp where the path of a socket below it would be too long."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) + ROOM <= MAX_SOCKET_PATH else "/tmp"


def _told(error: OSError, url: str) -> NsmError:
    match error.errno:
        case errno.EADDRINUSE:
            return AlreadyExists(f"{url}: address in use", hint="stop the program that listens there, or take another")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return PermissionDenied(
                f"{url}: not allowed to listen here", hint="choose a place that this user may write to, or a high port"
            )
        case errno.EADDRNOTAVAIL:
            return InvalidRequest(f"{url}: not an address of this machine", hint="see `ip address` for those that are")
        case None if str(error) == "AF_UNIX path too long":
            return InvalidRequest(f"{url}: too long for the path of a unix socket", hint=SHORTER)
        case errno.ENOTDIR | errno.EEXIST | errno.ENAMETOOLONG | errno.EINVAL:
            return InvalidRequest(f"{url}: not a place for a socket: {error.strerror}", hint="choose another path")
        case _:
            return FailedPrecondition(f"{url}: cannot listen: {error.strerror or error}", hint="see the reason above")


async def check_tcp(target: Target) -> None:
    """Raise if nobody could listen there now."""
    with contextlib.ExitStack() as place:
        await bind_tcp(target, place)


async def bind_tcp(target: Target, place: contextlib.ExitStack) -> tuple[list[socket.socket], str]:
    """Listen on every address of the target's host; answers the sockets and the URL with the port taken.

    An empty host is every address of this machine. The sockets close with `place`.
    """
    host, port, url = target.host, target.port, target.url
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidRequest(f"{url}: unknown host {host!r}", hint="write an address of this machine") from error
    refused: OSError | None = None
    bound: list[socket.socket] = []
    for family, _, _, _, (name, _, *rest) in found:
        try:
            # The protocol by number: asyncio sends small frames without delay only where it sees that it is TCP.
            one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError as error:
            # A machine without IPv6 may still know of it.
            refused = error
            continue
        place.enter_context(contextlib.closing(one))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            one.bind((name, port, *rest))
            # Two sockets may be bound to one port with SO_REUSEADDR as long as none of them listens.
            one.listen(BACKLOG)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise _told(error, url) from error
            refused = error
            continue
        port = one.getsockname()[1]
        bound.append(one)
    if not bound:
        reason = refused or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        raise _told(reason, url) from reason
    return bound, Target("tcp", f"{target.address.rpartition(':')[0]}:{port}").url


def bind_unix(target: Target, mode: int, place: contextlib.ExitStack) -> socket.socket:
    """Listen at a path, or at an abstract name; socket and file go with `place`."""
    check_unix(target.address, target.url)
    one = place.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))

    def bind(path: str) -> None:
        one.bind(path)
        # Before the file has its name, so that nobody takes it for one that was left behind.
        one.listen(BACKLOG)

    if target.address.startswith("@"):
        try:
            bind("\0" + target.address[1:])
        except OSError as error:
            raise _told(error, target.url) from error
    else:
        place.enter_context(unix_place(target.address, target.url, mode, bind))
    return one


def check_unix(path: str, url: str) -> None:
    """Raise if nobody could listen there now; a socket file that nobody answers at is removed."""
    try:
        if path.startswith("@"):
            if _answers("\0" + path[1:]):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return
        if path.endswith("/"):
            raise OSError(errno.EINVAL, "it ends with a slash")
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        _clear(path, url)
    except OSError as error:
        raise _told(error, url) from error


@contextmanager
def unix_place(path: str, url: str, mode: int, bind: Callable[[str], object]) -> Iterator[None]:
    """Listen at `path`: calls `bind` with a name to bind to, and removes the socket file at the end."""
    try:
        with _beside(path) as temporary:
            # The mask is the process's own, but nothing is awaited while it is changed.
            before = os.umask(0o177)
            try:
                bind(temporary)
            finally:
                os.umask(before)
            os.chmod(temporary, mode)
            _link(temporary, path)
        mine = _identity(path)
    except OSError as error:
        raise _told(error, url) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _identity(path) == mine:
                os.unlink(path)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _clear(path: str, url: str) -> None:
    """Remove a socket file that nobody answers at; leave anything else alone and raise."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise AlreadyExists(f"{url}: there is something else at this path", hint="move it away, or choose another path")
    if _answers(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _answers(path: str) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            # Somebody listens and is too busy to accept.
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


@contextmanager
def _beside(path: str) -> Iterator[str]:
    """An unused name in the directory of `path`, short enough to be bound."""
    folder = os.path.dirname(path) or "."
    name = f".{secrets.token_hex(4)}"
    plain = os.path.join(folder, name)
    with contextlib.ExitStack() as stack:
        bound = plain
        if len(os.fsencode(plain)) > MAX_SOCKET_PATH:
            handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, handle)
            bound = f"/proc/self/fd/{handle}/{name}"
        try:
            yield bound
        finally:
            with contextlib.suppress(OSError):
                os.unlink(bound)


def _link(temporary: str, path: str) -> None:
    try:
        # Fails if somebody has taken the name meanwhile, where a rename would push them out.
        os.link(temporary, path)
    except FileExistsError as error:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        os.rename(temporary, path)
