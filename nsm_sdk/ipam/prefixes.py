# SPDX-License-Identifier: Apache-2.0
"""Pool of prefixes that are cut to size.

Does:  gives each connection a /30 or /126 with its two addresses, and extra prefixes on request; excludes prefixes
       and takes them back; tells whether a prefix meets the pool. An existing prefix of the right length is given
       before a longer one is cut, and the smallest that is large enough is cut.
Place: pure; for endpoints that hand out subnets rather than addresses.
State: the free addresses of both families, and what each connection has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from nsm_sdk.errors import AlreadyExists, Exhausted, InvalidRequest, NotFound
from nsm_sdk.ipam.addresses import Interface, Network, bounds, parse_network
from nsm_sdk.ipam.pools import DualPool, IpPool, Ranges, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraPrefixes:
    """A wish for further prefixes: at least `required`, at best `requested` of `length` bits."""

    version: Version
    length: int
    required: int
    requested: int

    def check(self) -> None:
        """InvalidRequest where the numbers make no sense together."""
        if self.length < 1 or self.length > (32 if self.version == 4 else 128):
            raise InvalidRequest(f"/{self.length} is no length of an extra prefix of IPv{self.version}")
        if self.required < 0 or self.requested < 1 or self.required > self.requested:
            raise InvalidRequest(
                f"an extra prefix request for at least {self.required} and at best {self.requested} makes no sense",
                hint="required must not exceed requested, and requested must be 1 or more",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetLease:
    """What a connection got: two addresses of one small subnet, and extra prefixes."""

    src: Interface
    dst: Interface
    extra: tuple[Network, ...] = ()


class PrefixPool:
    """Free prefixes of both families, and the connections that hold the others."""

    def __init__(self, *prefixes: str | Network) -> None:
        """InvalidRequest where a prefix cannot be read."""
        self._free = DualPool(*prefixes)
        self._leases: dict[str, SubnetLease] = {}

    def prefixes(self) -> list[Network]:
        """The free prefixes, the fewest possible, ascending, IPv4 first."""
        return list(self._free.prefixes())

    def extract(self, connection: str, version: Version, extra: Sequence[ExtraPrefixes] = ()) -> SubnetLease:
        """A lease for `connection`: all that is required, or Exhausted and nothing changed.

        AlreadyExists where the connection holds a lease; InvalidRequest where a wish makes no sense.
        """
        if connection in self._leases:
            raise AlreadyExists(f"connection {connection!r} holds a lease already", hint="release it first")
        for wish in extra:
            wish.check()
        taken: list[Network] = []
        try:
            subnet = self._cut(version, 30 if version == 4 else 126, taken)
            # the requirements of all come before the wishes of any
            for wish in extra:
                for _ in range(wish.required):
                    self._cut(wish.version, wish.length, taken)
        except Exhausted:
            self._give_back(taken)
            raise
        for wish in extra:
            for _ in range(wish.requested - wish.required):
                try:
                    self._cut(wish.version, wish.length, taken)
                except Exhausted:
                    break
        lease = SubnetLease(src=_nth(subnet, 1), dst=_nth(subnet, 2), extra=tuple(taken[1:]))
        self._leases[connection] = lease
        return lease

    def release(self, connection: str) -> None:
        """Take back all that `connection` holds. NotFound where it holds nothing."""
        lease = self._leases.pop(connection, None)
        if lease is None:
            raise NotFound(f"connection {connection!r} holds no lease")
        self._give_back([lease.src.network, *lease.extra])

    def exclude(self, prefixes: Iterable[str | Network]) -> list[Network]:
        """Take prefixes out; returns the parts that were really free, for `release_excluded`.

        InvalidRequest where one cannot be read, Exhausted where nothing would be left; then nothing is changed.
        """
        nets = [parse_network(prefix) if isinstance(prefix, str) else prefix for prefix in prefixes]
        removed: list[Network] = []
        for net in nets:
            for part in _common(self._free.of(net.version), net):
                self._free.exclude(part)
                removed.append(part)
        if removed and self._free.is_empty:
            self._give_back(removed)
            raise Exhausted(
                "IPAM: The available address pool is empty, probably intersected by excludedPrefix",
                hint="give a prefix that the excluded ones do not cover",
            )
        return removed

    def release_excluded(self, removed: Iterable[Network]) -> None:
        """Put back what `exclude` took out."""
        self._give_back(removed)

    def intersects(self, prefix: str | Network) -> bool:
        """True where a free address lies in `prefix`. InvalidRequest where it cannot be read."""
        net = parse_network(prefix) if isinstance(prefix, str) else prefix
        return bool(_common(self._free.of(net.version), net))

    def _cut(self, version: Version, length: int, taken: list[Network]) -> Network:
        fitting = [net for net in self._free.of(version).prefixes() if net.prefixlen <= length]
        if not fitting:
            raise Exhausted(f"no room for a prefix of length {length} in IPv{version}", hint="give a larger prefix")
        best = max(fitting, key=lambda net: net.prefixlen)
        part = parse_network(f"{best.network_address}/{length}")
        self._free.exclude(part)
        taken.append(part)
        return part

    def _give_back(self, nets: Iterable[Network]) -> None:
        for net in nets:
            self._free.add(net)


def _nth(subnet: Network, index: int) -> Interface:
    kind = IPv4Interface if subnet.version == 4 else IPv6Interface
    return kind((int(subnet.network_address) + index, subnet.prefixlen))


def _common(pool: IpPool, net: Network) -> list[Network]:
    """The free part of `net`, as prefixes."""
    wanted = Ranges([bounds(net)])
    common = IpPool(version=pool.version)
    for prefix in pool.prefixes():
        if wanted.meeting(*bounds(prefix)) is not None:
            common.add(net if net.prefixlen >= prefix.prefixlen else prefix)
    return list(common.prefixes())
