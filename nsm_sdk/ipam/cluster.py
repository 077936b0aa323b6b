# SPDX-License-Identifier: Apache-2.0
"""Element that excludes the prefixes of the cluster a manager stands in.

Does:  adds the prefixes of a file (`prefixes:` and a list, in YAML or JSON) to those that a request excludes. The file
       is looked at with every request and read when it has changed; without it nothing is excluded; one that cannot be
       understood is reported, and what was read before stays.
Place: in a manager's chain.
State: the file's prefixes, and how the file looked when they were read.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.errors import InvalidRequest
from nsm_sdk.ipam.addresses import parse_network
from nsm_sdk.ipam.pools import DualPool

logger = logging.getLogger("nsm_sdk.ipam")

DEFAULT_FILE = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml"


class ClusterPrefixes(Element):
    """Excludes the prefixes that `source` names at the time of the request."""

    def __init__(self, source: Callable[[], Sequence[str]]) -> None:
        """`source` answers CIDR texts; a `PrefixesFile` is one."""
        self.source = source

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        excluded = request.connection.context.ip_context.excluded_prefixes
        wanted = list(dict.fromkeys([*excluded, *self.source()]))
        del excluded[:]
        excluded.extend(wanted)
        return await next.request(call, request)


class PrefixesFile:
    """Prefixes of a file, merged and ascending, IPv4 first."""

    def __init__(self, path: str | Path = DEFAULT_FILE) -> None:
        self.path = Path(path)
        self._looked: tuple[int, int, int] | None = None
        self._prefixes: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        try:
            found = os.stat(self.path)
            looks = (found.st_mtime_ns, found.st_ino, found.st_size)
            if looks != self._looked:
                text = self.path.read_text()
                self._looked = looks
                self._prefixes = merged(parse_prefixes(text))
        except FileNotFoundError:
            self._looked = None
            self._prefixes = ()
        except (OSError, UnicodeDecodeError, InvalidRequest) as error:
            logger.warning("excluded prefixes: %s: %s; what was read before stays", self.path, error)
        return self._prefixes

    def __repr__(self) -> str:
        return f"PrefixesFile({str(self.path)!r})"


def merged(prefixes: Sequence[str]) -> tuple[str, ...]:
    """The same addresses as the fewest prefixes, ascending, IPv4 first. InvalidRequest where one cannot be read."""
    return tuple(map(str, DualPool(*prefixes).prefixes()))


def parse_prefixes(text: str) -> list[str]:
    """The list under `prefixes`, in JSON or in plain YAML. InvalidRequest where the text is anything else."""
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InvalidRequest(f"it is not JSON: {error}") from None
        items = found.get("prefixes") or []
        if not isinstance(items, list):
            raise InvalidRequest("`prefixes` is not a list")
        return [_item(item) for item in items]
    items = []
    inside = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].rstrip()
        if not line or line == "---":
            continue
        if line.startswith("prefixes:"):
            inside = True
            rest = line.removeprefix("prefixes:").strip()
            if rest.startswith("[") and rest.endswith("]"):
                items.extend(_item(item) for item in rest[1:-1].split(",") if item.strip())
            elif rest not in {"", "null", "~"}:
                raise InvalidRequest(f"line {number}: a list is expected after `prefixes:`")
        elif inside and line.lstrip().startswith("- "):
            items.append(_item(line.lstrip()[2:]))
        elif line[0].isspace() or line.startswith("-"):
            if inside:
                raise InvalidRequest(f"line {number}: a prefix is expected, such as `- 10.0.0.0/8`")
        elif ":" in line:
            inside = False
        else:
            raise InvalidRequest(f"line {number}: `prefixes:` and a list are expected")
    return items


def _item(item: object) -> str:
    text = str(item).strip().strip("\"'")
    parse_network(text)
    return text
