# SPDX-License-Identifier: Apache-2.0
"""The IPAM service of a virtual layer 3 network: prefixes for endpoints, one stream for each.

Does:  `manage_prefixes` answers the requests of one stream from a `PrefixSupply`. The stream is the lease: when it
       ends, for whatever reason, all that it was given is free again. A prefix that is asked for by name is given if it
       is free; otherwise the lowest of the usual length, aligned, outside what the request excludes.
Place: mounted by a transport as the method `ManagePrefixes`; knows nothing of how messages travel.
State: what is free, in the supply; what a stream holds, in its generator.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from nsm_sdk.api import PrefixRequest, PrefixResponse, PrefixType
from nsm_sdk.core import Runtime, Service
from nsm_sdk.errors import Exhausted, InvalidRequest
from nsm_sdk.ipam.addresses import Network, parse_network, readable_networks
from nsm_sdk.ipam.pools import Exclusion, IpPool


class PrefixSupply(Service):
    """Free prefixes of one family, cut to `length` bits unless somebody asks for another one by name."""

    def __init__(self, *prefixes: str | Network, length: int) -> None:
        """InvalidRequest where a prefix cannot be read, is of another family, or is smaller than `length` says."""
        self.prefixes = tuple(parse_network(prefix) if isinstance(prefix, str) else prefix for prefix in prefixes)
        self.length = length
        self.pool = IpPool(*self.prefixes)
        for prefix in self.prefixes:
            if not prefix.prefixlen <= length <= prefix.max_prefixlen:
                raise InvalidRequest(
                    f"prefixes of length {length} cannot be cut from {prefix}",
                    hint=f"give a length from {prefix.prefixlen} to {prefix.max_prefixlen}",
                )

    async def start(self, runtime: Runtime) -> None:
        self.pool = IpPool(*self.prefixes)

    def take(self, wish: str = "", exclude: Iterable[str] = ()) -> Network:
        """The prefix `wish`, if it is free and not excluded, else the lowest. Exhausted where there is none."""
        excluded = Exclusion(exclude)
        for wanted in readable_networks([wish]):
            if wanted in self.pool and wanted not in excluded:
                return self.pool.pull_network(wanted)
        return self.pool.pull_subnet(self.length, excluded)

    def give_back(self, prefix: Network) -> None:
        """Make a prefix free."""
        self.pool.add(prefix)

    def __repr__(self) -> str:
        return f"PrefixSupply({', '.join(map(str, self.prefixes))}, length={self.length})"


async def manage_prefixes(
    supply: PrefixSupply, requests: AsyncIterator[PrefixRequest]
) -> AsyncGenerator[PrefixResponse, None]:
    """Answers to the requests of one stream; a DELETE has none. Whoever iterates must close the generator
    (`contextlib.aclosing`), so that the prefixes are free at once.

    Raises Exhausted where no prefix is left, InvalidRequest for a request without a type; both end the stream.
    """
    held: dict[str, Network] = {}
    try:
        async for request in requests:
            if request.type == PrefixType.ALLOCATE:
                try:
                    prefix = supply.take(request.prefix, request.exclude_prefixes)
                except Exhausted as error:
                    raise Exhausted(f"failed to manage prefixes: {error.message}", hint=error.hint) from error
                held[str(prefix)] = prefix
                yield PrefixResponse(prefix=str(prefix), exclude_prefixes=request.exclude_prefixes)
            elif request.type == PrefixType.DELETE:
                for prefix in readable_networks([request.prefix]):
                    if held.pop(str(prefix), None) is not None:
                        supply.give_back(prefix)
            elif request.type == PrefixType.UNDEFINED:
                raise InvalidRequest("request type is undefined", hint="set the type to ALLOCATE or DELETE")
    finally:
        for prefix in held.values():
            supply.give_back(prefix)
