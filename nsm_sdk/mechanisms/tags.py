# SPDX-License-Identifier: Apache-2.0
"""Whose is it: the marks on everything that a forwarder makes.

Does:  derives from (forwarder, role, first segment id, connection id) a MAC, a link alias, a file name and a block of
       routing tables. A MAC can be given in the message that makes a link and an alias cannot, so a link is known
       as ours from the moment it exists. Tables are numbers of 31 bits: 22 bits of hash above 8 bits of position, so
       that two connections in one namespace do not meet and a rule left over is found without any memory of it.
Place: under `desired` and the datapath.
State: none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import quote, unquote

CLIENT_SIDE = "server"
ENDPOINT_SIDE = "client"
"""The roles of the ends, as aliases have them: to the client a forwarder is a server, to the endpoint a client."""

_ALIAS_LIMIT = 255
_PREFIX = "nsm"
TABLES = range(0x40000000, 0x80000000)
TABLES_EACH = 256


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def derived_mac(role: str, connection: str) -> str:
    """The MAC of one end of a connection."""
    raw = bytearray(_digest("mac", role, connection)[:6])
    raw[0] = (raw[0] & 0xFC) | 0x02
    return raw.hex(":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """Forwarder, role, first segment of the path, connection id at the forwarder."""

    forwarder: str
    role: str
    segment: str
    connection: str

    @property
    def alias(self) -> str:
        """`nsm:forwarder:role:segment:connection`, quoted; ids too long for an alias are replaced by their hash."""
        parts = [quote(part, safe="") for part in (self.forwarder, self.role, self.segment, self.connection)]
        text = ":".join((_PREFIX, *parts))
        if len(text) <= _ALIAS_LIMIT:
            return text
        short = ["~" + _digest(part).hex()[:40] if len(part) > 42 else part for part in parts]
        return ":".join((_PREFIX, *short))

    @property
    def mac(self) -> str:
        """A locally administered unicast address."""
        return derived_mac(self.role, self.connection)

    @property
    def metric(self) -> int:
        """The metric of IPv6 routes: better than what kernels and routers give, and rarely that of another connection,
        since two gateways of one metric would share the traffic."""
        return 256 + (self.tables.start // TABLES_EACH) % 512

    @property
    def tables(self) -> range:
        """The routing tables that are this end's own."""
        value = int.from_bytes(_digest("table", self.role, self.connection)[:4], "big") & 0x3FFFFF
        first = TABLES.start + value * TABLES_EACH
        return range(first, first + TABLES_EACH)


def parse_alias(alias: str) -> Tag | None:
    """The tag of an alias; None for an alias that is not of our making."""
    parts = alias.split(":")
    if len(parts) != 5 or parts[0] != _PREFIX or parts[2] not in (CLIENT_SIDE, ENDPOINT_SIDE):
        return None
    forwarder, role, segment, connection = (unquote(part) for part in parts[1:])
    return Tag(forwarder=forwarder, role=role, segment=segment, connection=connection)


def file_name(connection: str) -> str:
    """The name of a connection's record: safe for any id that a peer may send."""
    return _digest("record", connection).hex()[:32] + ".json"
