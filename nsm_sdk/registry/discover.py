# SPDX-License-Identifier: Apache-2.0
"""Which endpoints may take a connection.

Does:  finds the endpoint that the request names, or those that the service's matches leave for the client's labels.
       `RoundRobin` chooses from what it finds; where one is named, `call.url` points to it.
Place: a forwarder or a manager proxy, below `Begin`, above `RoundRobin`.
State: `USED`: name and address of the endpoint in use; a refresh finds it also while the registry does not list it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint, Request
from nsm_sdk.api.limits import MOST_ITEMS
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import InvalidRequest, NoCandidate, NsmError
from nsm_sdk.registry.alternatives import Ask, Option
from nsm_sdk.registry.candidates import Candidates
from nsm_sdk.registry.matching import select_endpoints, why_not

logger = logging.getLogger("nsm_sdk.registry")

QUICK = 1.0
"""Seconds for a look-up that has an answer to fall back to."""
_LISTED = 8
"""Candidates that an error tells about."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a service leaves to choose from. An endpoint may be there twice: it is chosen twice as often."""

    service: str
    options: tuple[Option, ...]
    ask: Ask | None = None
    """What there is by now, by a plain Find."""


OFFER = Slot[Offer]("endpoints to choose from")
"""Set for the time of one request."""
USED = Slot[Option]("endpoint in use")
"""Set by whoever has chosen, until the close."""


class Discover(Element):
    """Find endpoints in `candidates`. NoCandidate when none fits, Unavailable while the registry cannot be reached.

    A `call.url` that is set already is left alone.
    """

    offer = OFFER
    used = USED

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if call.url:
            return await next.request(call, request)
        conn = request.connection
        name = conn.network_service_endpoint_name
        if name:
            used = Option(name, await self._url(call, conn))
            call.url = used.url
            answer = await next.request(call, request)
            USED.set(call, used)
            return answer
        service = await find_service(self.candidates, call, conn)
        labels = dict(conn.labels)

        async def ask(call: Call) -> Sequence[Option]:
            return await self._present(call, labels, service)

        OFFER.set(call, Offer(service.name, await self._options(call, conn, service), ask))
        conn.payload = service.payload
        try:
            return await next.request(call, request)
        finally:
            OFFER.pop(call)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        used = USED.pop(call)
        if not call.url:
            call.url = used.url if used is not None else await self._last_url(call, conn)
        await next.close(call, conn)

    async def _url(self, call: Call, conn: Connection) -> str:
        """Where the endpoint that the request names listens."""
        name = conn.network_service_endpoint_name
        used = USED.get(call)
        if used is not None and used.name == name:
            # The endpoint is asked whether it lives; the registry may have been restarted and not know it yet.
            return await self._quick_url(call, conn) or used.url
        found = await self.candidates.endpoint(call, name, conn.network_service)
        if found is None:
            raise NoCandidate(
                f"endpoint {name!r} is not registered",
                hint="leave the endpoint's name out to get any endpoint of the service, or wait until it registers",
            )
        if not found.url:
            raise NoCandidate(f"endpoint {name!r} is registered without a URL", hint="register it with its address")
        return found.url

    async def _quick_url(self, call: Call, conn: Connection) -> str:
        quick = Call(call.runtime, deadline=call.runtime.clock.now() + min(2 * QUICK, call.remaining() / 2))
        try:
            found = await self.candidates.endpoint(quick, conn.network_service_endpoint_name, conn.network_service)
        except NsmError:
            return ""
        return found.url if found is not None else ""

    async def _last_url(self, call: Call, conn: Connection) -> str:
        """For the close of a connection that nobody here remembers."""
        return await self._quick_url(call, conn) if conn.network_service_endpoint_name else ""

    async def _options(self, call: Call, conn: Connection, service: NetworkService) -> tuple[Option, ...]:
        seen: Sequence[NetworkServiceEndpoint] = ()

        def pick(endpoints: Sequence[NetworkServiceEndpoint]) -> tuple[Option, ...] | None:
            nonlocal seen
            seen = endpoints
            return _fitting(conn.labels, service, endpoints)

        found = await self.candidates.endpoints(call, _offered_by(service), pick)
        if found is None:
            raise _nothing_fits(conn, service, seen)
        return found

    async def _present(self, call: Call, labels: Mapping[str, str], service: NetworkService) -> Sequence[Option]:
        """The options as the registry has them now; none where it cannot say quickly."""
        quick = Call(call.runtime, deadline=call.runtime.clock.now() + min(2 * QUICK, call.remaining() / 2))

        def pick(endpoints: Sequence[NetworkServiceEndpoint]) -> tuple[Option, ...] | None:
            return _fitting(labels, service, endpoints)

        try:
            return await self.candidates.endpoints(quick, _offered_by(service), pick, plain=True) or ()
        except NsmError:
            return ()


def _offered_by(service: NetworkService) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(network_service_names=[service.name])


def _fitting(
    labels: Mapping[str, str], service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> tuple[Option, ...] | None:
    left = select_endpoints(labels, service, endpoints)
    # By name: the order of a find's results means nothing, and changes, which would upset whose turn it is.
    return tuple(sorted((Option(one.name, one.url) for one in left if one.url), key=lambda one: one.name)) or None


async def find_service(candidates: Candidates, call: Call, conn: Connection) -> NetworkService:
    """The service that a connection asks for.

    InvalidRequest if it names none; NoCandidate if there is none of the name, or only one with another payload.
    """
    name = conn.network_service
    if not name:
        raise InvalidRequest(
            "the request names no network service", hint="set `network_service`, or the endpoint's name as well"
        )
    service = await candidates.service(call, name)
    if service is None:
        raise NoCandidate(
            f"network service {name!r} is not registered", hint="check the name, or register the service first"
        )
    if len(service.matches) > MOST_ITEMS["matches"] or any(
        len(match.routes) > MOST_ITEMS["routes"] for match in service.matches
    ):
        # Each request would pay for it, at each endpoint.
        raise NoCandidate(
            f"network service {name!r} has more matches or routes than can be looked at",
            hint=f"register it with at most {MOST_ITEMS['matches']} matches of {MOST_ITEMS['routes']} routes each",
        )
    if conn.payload and conn.payload != service.payload:
        # It may have been registered again a moment ago.
        service = await candidates.service(call, name, plain=True) or service
    if conn.payload and conn.payload != service.payload:
        raise NoCandidate(
            f"network service {name!r} carries {service.payload!r}, asked for is {conn.payload!r}",
            hint="ask for the payload of the service, or leave it out",
        )
    return service


def _nothing_fits(
    conn: Connection, service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> NoCandidate:
    labels = dict(conn.labels)
    if not endpoints:
        return NoCandidate(
            f"no endpoint of network service {service.name!r} is registered",
            hint="start an endpoint of the service; trying again helps once it has registered",
        )
    fell = [
        f"{one.name}: {'it has no URL' if not one.url and not service.matches else why_not(labels, service, one)}"
        for one in endpoints[:_LISTED]
    ]
    if len(endpoints) > _LISTED:
        fell.append(f"and {len(endpoints) - _LISTED} more")
    return NoCandidate(
        f"no endpoint of network service {service.name!r} fits a client with labels {labels}: {'; '.join(fell)}",
        hint="compare the labels of client and endpoints with the matches of the service",
    )
