# SPDX-License-Identifier: Apache-2.0
"""Which endpoints may take a connection.

`Discover` finds the endpoint that a request names, or those that the service's matches leave, and tries one after the
other in the order that `choose` gives; where one is named, `call.url` points to it. It stands in a forwarder or a
manager proxy, below `Begin`, and keeps name and address of the endpoint in use (`USED`): a refresh finds it also while
the registry does not list it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint, Request, State
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import InvalidRequest, NoCandidate, NsmError
from nsm_sdk.registry.candidates import Candidates
from nsm_sdk.registry.failover import Option, RecentFailures, try_each
from nsm_sdk.registry.matching import select_endpoints, why_not

logger = logging.getLogger("nsm_sdk.registry")

QUICK_LOOKUP = 1.0
"""Seconds for a look-up that has an answer to fall back to."""
_LISTED = 8
"""Candidates that an error tells about."""
MOST_SELECTORS = 33_000
"""Matches and routes of a service together; one that has more is not chosen from."""
_MAX_SERVICES = 4096
"""Services whose turn is remembered."""


USED = Slot[Option]("endpoint in use")
"""Set once an endpoint has taken the connection, until the close."""


class Choose(Protocol):
    """How `Discover` chooses among the endpoints that fit."""

    def order(self, service: str, options: Sequence[Option]) -> Sequence[Option]:
        """The options in the order in which they are tried. One may be there twice: it is chosen twice as often."""
        ...


class RoundRobin:
    """Begins with another endpoint each time."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def order(self, service: str, options: Sequence[Option]) -> Sequence[Option]:
        """The options, rotated by one more each time that a service is asked for."""
        if len(self._turns) >= _MAX_SERVICES:
            self._turns.clear()
        turn = self._turns.get(service, 0)
        self._turns[service] = turn + 1
        turn %= len(options)
        return (*options[turn:], *options[:turn])


class Discover(Element):
    """Finds the endpoint that the request names, or one of those that the service's matches leave for the client's
    labels.

    `candidates`: what is registered. `choose`: the order in which endpoints are tried until one takes the connection;
    `RoundRobin()` unless given. Those that failed lately come last, and last of all the one that a client wants to get
    away from. A connection that lives at one of them keeps to it.

    NoCandidate when none fits, Unavailable while the registry cannot be reached, the error of the last one tried when
    all fail. A `call.url` that is set already is left alone.
    """

    used = USED

    def __init__(self, candidates: Candidates, *, choose: Choose | None = None) -> None:
        self.candidates = candidates
        self.choose: Choose = RoundRobin() if choose is None else choose
        self._failures = RecentFailures()

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

        options = await self._options(call, conn, service)
        conn.payload = service.payload
        order = self._order(call, conn, self.choose.order(service.name, options))
        if not order:
            raise NoCandidate(
                f"none of {len(options)} endpoints of network service {service.name!r} was chosen",
                hint=f"{type(self.choose).__name__} chooses among them; trying again may help",
            )
        used, answer = await try_each(
            call, request, next, order, self._failures, f"endpoint of {service.name!r}", _name_endpoint, ask
        )
        USED.set(call, used)
        return answer

    def _order(self, call: Call, conn: Connection, options: Sequence[Option]) -> list[Option]:
        before = _hops_before(conn)
        if conn.state == State.RESELECT_REQUESTED:
            return self._failures.order(options, call.runtime.clock.now(), before)
        order = self._failures.order(options, call.runtime.clock.now())
        # The connection lives at one of them, also where this hop was restarted: no other is tried.
        return [option for option in order if option.name in before][:1] or order

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
        quick = Call(call.runtime, deadline=call.runtime.clock.now() + min(2 * QUICK_LOOKUP, call.remaining() / 2))
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
        quick = Call(call.runtime, deadline=call.runtime.clock.now() + min(2 * QUICK_LOOKUP, call.remaining() / 2))

        def pick(endpoints: Sequence[NetworkServiceEndpoint]) -> tuple[Option, ...] | None:
            return _fitting(labels, service, endpoints)

        try:
            return await self.candidates.endpoints(quick, _offered_by(service), pick, plain=True) or ()
        except NsmError:
            return ()


def _name_endpoint(conn: Connection, option: Option) -> None:
    conn.network_service_endpoint_name = option.name


def _hops_before(conn: Connection) -> list[str]:
    """Names of the hops behind us that a connection went through before: its endpoint is among them."""
    return [hop.name for hop in conn.path.path_segments[conn.path.index + 1 :]]


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
    if len(service.matches) + sum(len(match.routes) for match in service.matches) > MOST_SELECTORS:
        # Each request would pay for it, at each endpoint.
        raise NoCandidate(
            f"network service {name!r} has more matches or routes than can be looked at",
            hint=f"register it with at most {MOST_SELECTORS} matches and routes together",
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
