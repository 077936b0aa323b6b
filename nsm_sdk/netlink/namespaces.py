# SPDX-License-Identifier: Apache-2.0
"""Named network namespaces, as `ip netns` makes them, without that tool.

Does:  makes (unshare in a thread, bind mount under /run/netns), deletes, lists; runs a function inside one.
Place: lab, demo, doctor, tests. Blocking calls of about a millisecond; deleting does not wait for the
       kernel's clean-up.
State: the machine's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from nsm_sdk.errors import AlreadyExists, FailedPrecondition, NsmError, PermissionDenied
from nsm_sdk.netlink.libc import CLONE_NEWNET, MS_BIND, MS_REC, MS_SHARED, mount, umount, unshare
from nsm_sdk.netlink.sockets import inside, open_namespace

T = TypeVar("T")
FOLDER = Path("/run/netns")


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
        raise _explain(error) from error
    thread = threading.Thread(target=make, name="nsm-netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        path.unlink(missing_ok=True)
        raise _explain(failure[0]) from failure[0]
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
    from nsm_sdk.mechanisms.model import SetLink
    from nsm_sdk.netlink import codec
    from nsm_sdk.netlink.sockets import NetlinkSocket

    with contextlib.closing(NetlinkSocket()) as channel:
        channel.send([codec.encode(SetLink(up=True), 1)])


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


def _explain(error: OSError) -> NsmError:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            f"no network namespace can be made: {error.strerror}", hint="run as root or with CAP_SYS_ADMIN"
        )
    return FailedPrecondition(
        f"no network namespace can be made: {error.strerror}", hint="see that the kernel has network namespaces"
    )
