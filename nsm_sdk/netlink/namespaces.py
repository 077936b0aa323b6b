# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: by URL or by name, made, entered and deleted, as `ip netns` does, without that tool.

Does:  turns `file:///run/netns/NAME`, `/proc/PID/ns/net` or a descriptor into an open namespace file, checked to be
       one; enters it in a thread that ends afterwards, to open a socket or run a function there. Makes named ones
       (unshare in a thread, bind mount under /run/netns), deletes, lists.
Place: under the kernel adapter, the watch and the probe; lab, demo, doctor, tests. Blocking calls of about a
       millisecond; deleting does not wait for the kernel's clean-up.
State: the machine's, and the loaded C library: Python 3.11 has not these system calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from nsm_sdk.core import Runtime, Service
from nsm_sdk.errors import AlreadyExists, FailedPrecondition, Internal, InvalidRequest, NsmError, PermissionDenied
from nsm_sdk.mechanisms.model import NamespaceId, SetLink
from nsm_sdk.netlink import requests
from nsm_sdk.netlink.sockets import NetlinkSocket

logger = logging.getLogger("nsm_sdk.netlink")
T = TypeVar("T")
FOLDER = Path("/run/netns")
_NS_GET_NSTYPE = 0xB703
_SELF = re.compile(r"/proc/(thread-self|self)(/|$)")
_HINT = "give the namespace as file:///run/netns/NAME or file:///proc/PID/ns/net"
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SHARED, MS_SLAVE = 4096, 16384, 1 << 20, 1 << 19
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _done(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def setns(handle: int, kind: int) -> None:
    """Moves the calling thread into the namespace of descriptor `handle`."""
    _done(_libc.setns(handle, kind), "setns")


def unshare(kind: int) -> None:
    """Gives the calling thread a new namespace."""
    _done(_libc.unshare(kind), "unshare")


def mount(source: str, target: str, flags: int, kind: str = "none") -> None:
    _done(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None), f"mount {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    _done(_libc.umount2(target.encode(), flags), f"umount {target}")


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
        raise _not_entered(failure[0]) from failure[0]
    return result[0]


def _not_entered(error: BaseException) -> BaseException:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            f"a network namespace may not be entered: {error.strerror}", hint="run as root or with CAP_SYS_ADMIN"
        )
    return error if isinstance(error, NsmError) or not isinstance(error, OSError) else Internal(str(error))


def namespace_url(name: str) -> str:
    """The URL of the namespace called `name`; a path or URL is taken as it is."""
    if name.startswith("file://"):
        return name
    return f"file://{name}" if name.startswith("/") else f"file://{FOLDER / name}"


def unique_name(prefix: str = "nsm") -> str:
    """A name that nobody else uses: `<prefix>-<process id>-<random>`."""
    return f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}"


def create_namespace(name: str = "", *, prefix: str = "nsm") -> str:
    """Makes a namespace with its loopback up and returns its name.

    AlreadyExists, PermissionDenied, or FailedPrecondition where the machine has no namespaces.
    """
    name = name or unique_name(prefix)
    if "/" in name or name in (".", ".."):
        raise FailedPrecondition(f"{name!r} cannot be the name of a namespace", hint="leave out slashes and dots")
    path = FOLDER / name
    failure: list[OSError] = []

    def make() -> None:
        try:
            unshare(CLONE_NEWNET)
            _loopback_up()
            mount("/proc/thread-self/ns/net", str(path), MS_BIND)
        except OSError as error:
            failure.append(error)

    try:
        _shared_folder()
        path.touch(mode=0o444, exist_ok=False)
    except FileExistsError:
        raise AlreadyExists(f"namespace {name!r} exists already", hint="choose another name") from None
    except OSError as error:
        raise _not_made(error) from error
    thread = threading.Thread(target=make, name="nsm-netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        path.unlink(missing_ok=True)
        raise _not_made(failure[0]) from failure[0]
    return name


def _shared_folder() -> None:
    """Namespaces made here are to be seen in other mount namespaces, as `ip netns` sees to."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        mount("none", str(FOLDER), MS_SHARED | MS_REC)
    except OSError:
        mount(str(FOLDER), str(FOLDER), MS_BIND | MS_REC)
        mount("none", str(FOLDER), MS_SHARED | MS_REC)


def _loopback_up() -> None:
    with contextlib.closing(NetlinkSocket()) as channel:
        channel.send([requests.encode(SetLink(up=True), 1)])


def delete_namespace(name: str) -> bool:
    """Removes the name; the namespace ends with its last user. False when there was none."""
    path = FOLDER / name
    if not path.exists():
        return False
    with contextlib.suppress(OSError):
        umount(str(path))
    path.unlink(missing_ok=True)
    return True


def list_namespaces(prefix: str = "") -> list[str]:
    """Names of the named namespaces that begin with `prefix`, sorted."""
    if not FOLDER.is_dir():
        return []
    return sorted(path.name for path in FOLDER.iterdir() if path.name.startswith(prefix))


def run_inside(name: str | int, fn: Callable[[], T]) -> T:
    """Runs `fn` in that namespace (name, path, URL or descriptor) in a thread of its own, and returns its result."""
    handle, _ = open_namespace(namespace_url(name) if isinstance(name, str) else name)
    try:
        return inside(handle, fn)
    finally:
        os.close(handle)


@contextlib.contextmanager
def temporary_namespace(prefix: str = "nsm") -> Iterator[str]:
    """A namespace for the length of a block; yields its name."""
    name = create_namespace(prefix=prefix)
    try:
        yield name
    finally:
        delete_namespace(name)


def _not_made(error: OSError) -> NsmError:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            f"no network namespace can be made: {error.strerror}", hint="run as root or with CAP_SYS_ADMIN"
        )
    return FailedPrecondition(
        f"no network namespace can be made: {error.strerror}", hint="see that the kernel has network namespaces"
    )


class Resident(Service):
    """A thread of this program that stays in the namespace `url` while its role is served, so that a forwarder sees
    somebody live there although the program itself runs elsewhere. Where it may not enter, it stays away."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self, runtime: Runtime) -> None:
        """Enters, and returns when it is there."""
        self._leave.clear()
        there = threading.Event()

        def stay() -> None:
            try:
                handle, _ = open_namespace(self.url)
                try:
                    setns(handle, CLONE_NEWNET)
                finally:
                    os.close(handle)
            except (OSError, NsmError) as error:
                logger.info("cannot stay in namespace %s: %s", self.url, error)
                return
            finally:
                there.set()
            self._leave.wait()

        self._thread = threading.Thread(target=stay, name="nsm-resident", daemon=True)
        self._thread.start()
        await asyncio.to_thread(there.wait)

    async def stop(self) -> None:
        """Leaves."""
        self.leave()

    def leave(self) -> None:
        """Leaves, and returns when it has."""
        self._leave.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
