# SPDX-License-Identifier: Apache-2.0
"""Names of Linux interfaces: what the kernel takes, and how one is made up.

Does:  checks a name, makes a random one for a service, and draws unbiased random ids.
Place: service URLs, the kernel mechanism, and whoever creates a link.
State: a bounded cache of names looked at.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable

from nsm_sdk.errors import InvalidRequest, ProgrammingError

MAX_INTERFACE_NAME = 15
"""Longest name of a Linux interface, in bytes."""

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""What random ids are made of."""

_SERVICE_PART = MAX_INTERFACE_NAME - 5
# "%" is legal in the kernel's check but "%d" makes it number the link instead
_FORBIDDEN = frozenset("/:%")


def check_interface_name(name: str) -> None:
    """Raises InvalidRequest unless Linux takes `name` for an interface."""
    # A connection's names come again with every refresh; outside the cache what is too long, however long it is.
    problem = _known_problem(name) if len(name) <= MAX_INTERFACE_NAME else _problem(name)
    if problem:
        raise InvalidRequest(
            f"interface name {name[:64]!r} {problem}",
            hint=f"use 1 to {MAX_INTERFACE_NAME} bytes without blanks, '/', ':' and '%', for example nsm-1",
        )


def interface_name(service: str, random: Callable[[int], bytes] = os.urandom) -> str:
    """A new name of exactly 15 bytes that begins with the service's (at most 10 bytes of it).

    Characters that no interface name may have become "-".
    """
    # Only the first characters can get in.
    start = _start(service[:_SERVICE_PART])
    return start + nanoid(MAX_INTERFACE_NAME - len(start.encode()), random=random)


def nanoid(size: int, *, alphabet: str = ALPHABET, random: Callable[[int], bytes] = os.urandom) -> str:
    """`size` letters of `alphabet`, each as likely as any other; `random(n)` gives n bytes."""
    if size < 0 or not 1 < len(alphabet) <= 256:
        raise ProgrammingError(f"no id of {size} letters out of {len(alphabet)}", hint="give 2 to 256 letters")
    mask = (1 << (len(alphabet) - 1).bit_length()) - 1
    # About as many bytes as are used up, given how many are thrown away
    step = math.ceil(1.6 * mask * size / len(alphabet))
    letters: list[str] = []
    while len(letters) < size:
        drawn = random(step)
        if not drawn:
            raise ProgrammingError("the source of random bytes is exhausted")
        letters += [alphabet[byte & mask] for byte in drawn if byte & mask < len(alphabet)]
    return "".join(letters[:size])


def _bad(letter: str) -> bool:
    return letter in _FORBIDDEN or letter.isspace() or not letter.isprintable()


@functools.lru_cache(maxsize=1024)
def _start(service: str) -> str:
    clean = "".join("-" if _bad(letter) else letter for letter in service)
    # Cutting bytes may cut a character: what is left of it goes too
    return clean.encode("utf-8", "ignore")[:_SERVICE_PART].decode("utf-8", "ignore") + "-"


@functools.lru_cache(maxsize=4096)
def _known_problem(name: str) -> str:
    return _problem(name)


def _problem(name: str) -> str:
    """What is wrong with the name; empty if nothing is."""
    if not name:
        return "is empty"
    length = len(name.encode("utf-8", "surrogatepass"))
    if length > MAX_INTERFACE_NAME:
        return f"has {length} bytes, {length - MAX_INTERFACE_NAME} too many"
    if name in (".", ".."):
        return "is the name of a directory"
    if name.isascii() and name.isprintable() and " " not in name and _FORBIDDEN.isdisjoint(name):
        return ""
    bad = next((letter for letter in name if _bad(letter)), "")
    return f"contains {bad!r}" if bad else ""
