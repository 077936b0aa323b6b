# SPDX-License-Identifier: Apache-2.0
"""Interface names: made from a service's name, and checked before they reach a kernel.

Does:  `interface_name` gives `<service[:10]>-<random>` of exactly 15 characters; `check_interface_name` refuses what
       Linux would refuse.
Place: kernel mechanism, both sides; the datapath.
State: none.
"""

from __future__ import annotations

import secrets
import string

from nsm_sdk.errors import InvalidRequest

LIMIT = 15
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX = 10


def interface_name(service: str) -> str:
    """A new name for an interface to `service`; characters that no interface may have are left out."""
    clean = "".join(char for char in service if char.isascii() and char.isprintable() and char not in "/: ")
    prefix = f"{clean[:_PREFIX]}-"
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(LIMIT - len(prefix)))


def check_interface_name(name: str, *, where: str = "the mechanism") -> str:
    """`name` itself, or InvalidRequest: empty, over 15 bytes, `.`/`..`, or with a slash, colon, space or control."""
    if not name:
        raise InvalidRequest(f"no interface name in {where}", hint="give the mechanism parameter 'name'")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LIMIT:
        raise InvalidRequest(
            f"interface name {name[:80]!r} in {where} has {size} bytes", hint=f"Linux allows at most {LIMIT}"
        )
    if name in (".", "..") or any(char in "/:" or char.isspace() or not char.isprintable() for char in name):
        raise InvalidRequest(
            f"interface name {name!r} in {where} has characters that Linux does not allow",
            hint="leave out slashes, colons, spaces and control characters",
        )
    return name
