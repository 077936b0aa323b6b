# SPDX-License-Identifier: Apache-2.0
"""Endpoints take turns.

Does:  tries the endpoints that `Discover` has found one after the other, beginning with another one each time; those
       that failed lately come last, and last of all the one that a client wants to get away from.
Place: right below `Discover`.
State: whose turn it is, per service; who failed lately.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Request, State
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.registry.alternatives import Failures, Option, try_each
from nsm_sdk.registry.discover import OFFER, USED, Discover

_MOST = 4096


class RoundRobin(Element):
    """Choose among the endpoints found. The error of the last one tried when all fail."""

    needs = (Discover,)

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._failures = Failures()

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        offer = OFFER.pop(call)
        if offer is None or call.url:
            return await next.request(call, request)
        turn = self._turn(offer.service) % len(offer.options)
        anew, before = request.connection.state == State.RESELECT_REQUESTED, _before(request.connection)
        order = self._failures.last(
            offer.options[turn:] + offer.options[:turn], call.runtime.clock.now(), before if anew else ()
        )
        if not anew:
            # The connection lives at one of them, also where this hop was restarted: nobody else is tried.
            order = [option for option in order if option.name in before][:1] or order
        used, answer = await try_each(
            call, request, next, order, self._failures, f"endpoint of {offer.service!r}", _name_endpoint, offer.ask
        )
        USED.set(call, used)
        return answer

    def _turn(self, service: str) -> int:
        if len(self._turns) >= _MOST:
            self._turns.clear()
        turn = self._turns.get(service, 0)
        self._turns[service] = turn + 1
        return turn


def _name_endpoint(conn: Connection, option: Option) -> None:
    conn.network_service_endpoint_name = option.name


def _before(conn: Connection) -> list[str]:
    """Names of the hops behind us that a connection went through before: its endpoint is among them."""
    return [hop.name for hop in conn.path.path_segments[conn.path.index + 1 :]]
