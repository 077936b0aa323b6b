# SPDX-License-Identifier: Apache-2.0
"""Tunnel addresses as another domain sees them.

Does:  replaces the inside address of a remote mechanism by the outside one, for the domain on the other side, and back
       for our own. A request of our own domain has a source address that nobody has swapped yet; such a request is on
       its source side, every other one on its destination side.
Place: in a manager's proxy, above `Connect`.
State: none; the map belongs to whoever made it and may change.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Call, Element, Next

SRC, ORIG_SRC = "src_ip", "orig_src_ip"
DST, ORIG_DST = "dst_ip", "orig_dst_ip"


class SwapSourceIp(Element):
    """On the source side: the other domain sees our outside address (`addresses`: inside to outside), our own hops the
    inside one. An address that is not in the map is left as it is."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if not _is_source(request):
            return await next.request(call, request)
        for mechanism in _mechanisms(request):
            parameters = _parameters(mechanism)
            if inside := parameters.get(SRC):
                parameters[ORIG_SRC] = inside
                parameters[SRC] = self._addresses.get(inside, inside)
        conn = await next.request(call, request)
        parameters = _parameters(conn.mechanism)
        if inside := parameters.pop(ORIG_SRC, ""):
            parameters[SRC] = inside
        return conn


class SwapDestinationIp(Element):
    """On the destination side: the other domain is answered our outside address, and the inside one beside it."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if _is_source(request):
            return await next.request(call, request)
        for mechanism in _mechanisms(request):
            parameters = _parameters(mechanism)
            parameters.pop(DST, None)
            parameters.pop(ORIG_DST, None)
        conn = await next.request(call, request)
        parameters = _parameters(conn.mechanism)
        if inside := parameters.get(DST):
            parameters[ORIG_DST] = inside
            parameters[DST] = self._addresses.get(inside, inside)
        return conn


def _mechanisms(request: Request) -> list[Mechanism]:
    own = [request.connection.mechanism] if request.connection.HasField("mechanism") else []
    return [*request.mechanism_preferences, *own]


def _is_source(request: Request) -> bool:
    """Whether the last mechanism that has a source address has one that nobody has swapped."""
    found = False
    for mechanism in _mechanisms(request):
        parameters = _parameters(mechanism)
        if parameters.get(SRC):
            found = not parameters.get(ORIG_SRC)
    return found


def _parameters(mechanism: Mechanism) -> MutableMapping[str, str]:
    # Protobuf maps behave as dictionaries but are not typed as ones.
    return mechanism.parameters
