# SPDX-License-Identifier: Apache-2.0
"""Settings that are groups of items: `[a,b],[c]`.

Does:  reads groups of prefixes and groups of service URLs.
Place: settings of endpoints (address pools) and of clients (which of their services share excluded prefixes).
"""

from __future__ import annotations

import ipaddress
import re

from nsm_sdk.api.urls import ServiceUrl
from nsm_sdk.errors import InvalidRequest

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

_BRACKETS = "write groups in brackets, separated by commas: [a,b],[c]"


def prefix(text: str) -> Prefix:
    """The prefix that `address/length` lies in; the address's host part is dropped. InvalidRequest if it is none."""
    address, slash, length = text.partition("/")
    try:
        # ipaddress would take a netmask behind the slash, or no slash at all
        if slash and re.fullmatch("[0-9]{1,3}", length) and "%" not in address:
            return ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    raise InvalidRequest(f"{text[:64]!r} is not a prefix", hint="write it like 172.16.0.0/16 or fd00::/64")


def prefix_groups(text: str) -> list[list[Prefix]]:
    """Groups of prefixes; a prefix outside brackets is a group by itself. Empty text, no groups."""
    return [[prefix(item) for item in items] for _, items in _groups(text)]


def url_groups(text: str) -> list[list[ServiceUrl]]:
    """Groups of service URLs; a text without brackets is one group. Empty text, no groups."""
    groups = _groups(text)
    bare = [items for bracketed, items in groups if not bracketed]
    if bare and len(bare) != len(groups):
        raise InvalidRequest(f"groups {text[:256]!r} stand partly in brackets", hint=_BRACKETS)
    if bare:
        return [[ServiceUrl.parse(items[0]) for items in bare]]
    return [[ServiceUrl.parse(item) for item in items] for _, items in groups]


def _groups(text: str) -> list[tuple[bool, list[str]]]:
    """(in brackets, items) of each group; one item if not in brackets. Blanks do not count."""
    rest = "".join(text.split())
    groups: list[tuple[bool, list[str]]] = []
    # A bracket opens a group only at an item's start: elsewhere it may belong to an IPv6 host in a URL
    while rest:
        if rest.startswith("["):
            found = re.match(r"\[((?:[^\[\],]|(?<=//)\[[^\[\],]*\]|(?<=@)\[[^\[\],]*\]|,)*)\]", rest)
            if found is None:
                raise InvalidRequest(f"groups {text[:256]!r} have brackets that do not match", hint=_BRACKETS)
            groups.append((True, found[1].split(",")))
            rest = rest[found.end() :]
        else:
            item, _, _ = rest.partition(",")
            groups.append((False, [item]))
            rest = rest[len(item) :]
        if rest and (not rest.startswith(",") or rest == ","):
            raise InvalidRequest(f"groups {text[:256]!r} go on with {rest[:16]!r}", hint=_BRACKETS)
        rest = rest[1:]
    if not all(item for _, items in groups for item in items):
        raise InvalidRequest(f"groups {text[:256]!r} have an empty item", hint=_BRACKETS)
    return groups
