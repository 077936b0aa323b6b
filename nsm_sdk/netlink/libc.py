# SPDX-License-Identifier: Apache-2.0
"""The four system calls about namespaces and mounts that Python 3.11 does not offer.

Does:  setns, unshare, mount, umount with OSError on failure. The calls release the interpreter's lock.
Place: under sockets and namespaces.
State: the loaded C library.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SHARED, MS_SLAVE = 4096, 16384, 1 << 20, 1 << 19
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def setns(handle: int, kind: int) -> None:
    """Moves the calling thread into the namespace of descriptor `handle`."""
    _check(_libc.setns(handle, kind), "setns")


def unshare(kind: int) -> None:
    """Gives the calling thread a new namespace."""
    _check(_libc.unshare(kind), "unshare")


def mount(source: str, target: str, flags: int, kind: str = "none") -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None), f"mount {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")
