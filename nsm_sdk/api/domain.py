# SPDX-License-Identifier: Apache-2.0
"""Names across domains: `service@domain`.

Does:  splits a name at its first "@" and joins it again.
Place: interdomain elements of connections and registries.
State: none.
"""

from __future__ import annotations

SEPARATOR = "@"


def is_interdomain(name: str) -> bool:
    """True if the name says a domain, even an empty one."""
    return SEPARATOR in name


def split_domain(name: str) -> tuple[str, str]:
    """(name within the domain, domain); the domain is empty if the name has none. `a@b@c` is `a` of `b@c`."""
    target, _, domain = name.partition(SEPARATOR)
    return target, domain


def join_domain(*parts: str) -> str:
    """The parts joined by "@". A part that has a domain already gets a second one."""
    return SEPARATOR.join(parts)
