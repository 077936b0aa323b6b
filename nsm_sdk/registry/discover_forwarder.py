# SPDX-License-Identifier: Apache-2.0
"""Which forwarder carries a connection.

Does:  chooses a forwarder of this node that has the labels which the service asks for, tries the others when it fails,
       and keeps to it as long as the connection lives; a connection that selects anew tries the former one last.
Place: a manager, below `Begin`, above `Connect`.
State: name and address of the forwarder in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nsm_sdk.api import Connection, NetworkService, NetworkServiceEndpoint, Request, State
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import AlreadyExists, NoCandidate, NsmError
from nsm_sdk.registry.candidates import Candidates
from nsm_sdk.registry.discover import QUICK_LOOKUP, find_service
from nsm_sdk.registry.failover import Option, RecentFailures, try_each
from nsm_sdk.registry.matching import POINT_TO_POINT, applicable, labels_for, select_forwarders

FORWARDER = "forwarder"
"""The service that forwarders register for, unless told otherwise."""
_LISTED = 8


class DiscoverForwarder(Element):
    """Choose a forwarder from `candidates`. `service`: what forwarders register for. `manager`: this manager's public
    URL, or a function that tells it: only forwarders that the registry knows under it are of this node; empty where
    the registry holds no others.

    NoCandidate when none fits, Unavailable while the registry cannot be reached.
    """

    def __init__(
        self, candidates: Candidates, *, service: str = FORWARDER, manager: str | Callable[[], str] = ""
    ) -> None:
        self.candidates = candidates
        self.service = service
        self.manager = manager
        self._failures = RecentFailures()
        self._asked: NetworkServiceEndpoint | None = None
        self._used = Slot[Option]("forwarder in use")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        anew = conn.state == State.RESELECT_REQUESTED
        used = None if anew else self._used.get(call)
        if used is not None:
            used = Option(used.name, await self._quick_url(call, used.name) or used.url)
            call.url = used.url
            answer = await next.request(call, request)
            self._used.set(call, used)
            return answer
        service = await find_service(self.candidates, call, conn)
        options = await self._options(call, conn, service)
        before = _next_hop(conn)
        if anew:
            order = self._failures.order(options, call.runtime.clock.now(), [before])
        else:
            order = self._failures.order(options, call.runtime.clock.now())
            # A manager that was restarted finds in the path whom it had chosen, and keeps to it as it would have: what
            # lives there must not be closed because something further on fails.
            order = [option for option in order if option.name == before] or order
        labels = dict(conn.labels)

        async def ask(call: Call) -> Sequence[Option]:
            quick = Call(call.runtime, deadline=call.runtime.clock.now() + min(2 * QUICK_LOOKUP, call.remaining() / 2))
            try:
                return await self._look(quick, labels, service, plain=True) or ()
            except NsmError:
                return ()

        used, answer = await try_each(
            call, request, next, order, self._failures, "forwarder", ask=ask, final=(AlreadyExists,)
        )
        self._used.set(call, used)
        return answer

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        used = self._used.pop(call)
        if not call.url:
            before = _next_hop(conn)
            if used is not None:
                call.url = used.url
            elif before:
                call.url = await self._quick_url(call, before)
        await next.close(call, conn)

    def _query(self) -> NetworkServiceEndpoint:
        manager = self.manager if isinstance(self.manager, str) else self.manager()
        if self._asked is None or self._asked.url != manager:
            self._asked = NetworkServiceEndpoint(network_service_names=[self.service], url=manager)
        return self._asked

    async def _quick_url(self, call: Call, name: str) -> str:
        """The forwarder's present address; empty if it is not listed, or nobody can tell quickly."""
        quick = Call(call.runtime, deadline=call.runtime.clock.now() + min(2 * QUICK_LOOKUP, call.remaining() / 2))

        def pick(forwarders: Sequence[NetworkServiceEndpoint]) -> str | None:
            return next((one.url for one in forwarders if one.name == name and one.url), None)

        try:
            return await self.candidates.endpoints(quick, self._query(), pick) or ""
        except NsmError:
            return ""

    async def _options(self, call: Call, conn: Connection, service: NetworkService) -> list[Option]:
        seen: list[NetworkServiceEndpoint] = []
        found = await self._look(call, conn.labels, service, seen)
        if found is None:
            raise self._nothing_fits(dict(conn.labels), service, seen)
        return found

    async def _look(
        self,
        call: Call,
        labels: Mapping[str, str],
        service: NetworkService,
        seen: list[NetworkServiceEndpoint] | None = None,
        *,
        plain: bool = False,
    ) -> list[Option] | None:
        """The forwarders that fit; those that were looked at last are left in `seen`."""

        def pick(forwarders: Sequence[NetworkServiceEndpoint]) -> list[Option] | None:
            if seen is not None:
                seen[:] = forwarders
            left = select_forwarders(labels, service, forwarders, self.service)
            return sorted((Option(one.name, one.url) for one in left if one.url), key=lambda one: one.name) or None

        return await self.candidates.endpoints(call, self._query(), pick, plain=plain)

    def _nothing_fits(
        self, labels: dict[str, str], service: NetworkService, forwarders: Sequence[NetworkServiceEndpoint]
    ) -> NoCandidate:
        if not forwarders:
            return NoCandidate(
                f"no forwarder ({self.service!r}) is registered at this manager",
                hint="start a forwarder on this node; trying again helps once it has registered",
            )
        wanted = [dict(match.metadata.labels or POINT_TO_POINT) for match in applicable(service, labels)]
        fell = "; ".join(f"{one.name}: it has {dict(labels_for(one, self.service))}" for one in forwarders[:_LISTED])
        asked = " or ".join(map(str, wanted)) or "nothing: no match of the service applies to the client's labels"
        return NoCandidate(
            f"no forwarder fits network service {service.name!r} for a client with labels {labels}: {fell}; "
            f"asked for is {asked}",
            hint="compare the labels of the forwarders with the metadata in the matches of the service",
        )


def _next_hop(conn: Connection) -> str:
    """Name of the segment after ours, from an earlier request."""
    after = conn.path.path_segments[conn.path.index + 1 : conn.path.index + 2]
    return after[0].name if after else ""
