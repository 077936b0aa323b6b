# SPDX-License-Identifier: Apache-2.0
"""The nine points of the contract of elements, a coroutine each.

Does:  `CHECKS[number](contract)` makes the element anew, runs it on a bench and raises ContractError where it breaks
       that point, which `POINTS` puts in words.
Place: behind `check_element`; in virtual time.
State: none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import anyio

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import END, Chain, Element, Next
from nsm_sdk.errors import NsmError, Unavailable
from nsm_sdk.testing.bench import Bench, Contract, ContractError
from nsm_sdk.testing.doubles import FailTimes, Park
from nsm_sdk.testing.rig import Left
from nsm_sdk.testing.seen import copied

POINTS: Mapping[int, str] = {
    1: "fields it does not own pass unchanged",
    2: "the answer is the one from below",
    3: "an error from below comes out as it is and leaves nothing",
    4: "cancellation below leaves nothing",
    5: "request, refresh, close leaves nothing",
    6: "close without request and close twice succeed",
    7: "close goes on below whatever the connection looks like",
    8: "two connections do not see each other",
    9: "repr works unbound and holds no secret",
}


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractError(otherwise)


def _nothing(left: Left, after: str) -> None:
    _expect(not left, f"left after {after}: slots {left.slots}, tasks {left.tasks}, {left.timers} timers")


# A field of a version that we do not know: number 1000, bytes.
_UNKNOWN = b"\xc2\x3e\x03new"


def _rich(contract: Contract) -> Request:
    """The contract's request with more in it than the element asks for."""
    request = copied(contract.request())
    conn = request.connection
    conn.labels["contract"] = "request"
    conn.context.extra_context["contract"] = "request"
    conn.context.dns_context.configs.add(search_domains=["contract.example"], dns_server_ips=["192.0.2.53"])
    conn.MergeFromString(_UNKNOWN)
    rich: Request = request
    return rich


def without(message: Any, owned: frozenset[str]) -> Any:
    """A copy of `message` with the owned fields cleared; dotted names that lead nowhere are ignored."""
    copy = copied(message)
    for name in owned:
        *parents, last = name.split(".")
        part = copy
        for parent in parents:
            part = getattr(part, parent) if part is not None and part.HasField(parent) else None
        if part is not None and last in part.DESCRIPTOR.fields_by_name:
            part.ClearField(last)
    return copy


def _in_connection(owned: frozenset[str]) -> frozenset[str]:
    prefix = "connection."
    return frozenset(name.removeprefix(prefix) for name in owned if name.startswith(prefix))


def _same(before: Any, after: Any, owned: frozenset[str], what: str) -> None:
    ours, theirs = without(before, owned), without(after, owned)
    if ours.SerializeToString(deterministic=True) != theirs.SerializeToString(deterministic=True):
        lines = difflib.unified_diff(str(ours).splitlines(), str(theirs).splitlines(), "before", "after", lineterm="")
        raise ContractError("\n    ".join((what, *lines)))


async def _passes(contract: Contract) -> None:
    bench = Bench(contract)
    async with bench.open() as running:
        await running.request(_rich(contract))
        _expect(bench.bottom.seen.requests >= 1, "the request did not arrive below")
        above, below = bench.top.seen.of("request")[0].message, bench.bottom.seen.of("request")[0].message
        _same(above, below, contract.owns, "the request was changed on its way down")
        _expect(_UNKNOWN in below.connection.SerializeToString(), "an unknown field was lost on the way down")


async def _answers(contract: Contract) -> None:
    def marked(request: Request) -> Connection:
        conn = request.connection
        conn.labels["answer"] = "from below"
        conn.context.extra_context["answer"] = "from below"
        return conn

    bench = Bench(contract, _Marking(marked))
    async with bench.open() as running:
        await running.request(_rich(contract))
        above, below = bench.top.seen.of("request")[0].answer, bench.bottom.seen.of("request")[-1].answer
        _same(below, above, _in_connection(contract.owns), "the answer was changed on its way up")


class _Marking(Element):
    """Changes the answer."""

    def __init__(self, mark: Callable[[Request], Connection]) -> None:
        self._mark = mark

    async def request(self, call: Any, request: Request, next: Next) -> Connection:
        request.connection.CopyFrom(await next.request(call, request))
        return self._mark(request)


async def _fails(contract: Contract) -> None:
    error = Unavailable("from below")
    bench = Bench(contract, FailTimes(1_000_000, error))
    async with bench.open() as running:
        caught: BaseException | None = None
        try:
            await running.request(contract.request())
        except Exception as raised:
            caught = raised
        _expect(caught is error, f"instead of the error from below came {caught!r}")
        _nothing(await bench.left(running), "a first request that failed below")


async def _cancelled(contract: Contract) -> None:
    park = Park()
    bench = Bench(contract, park)
    async with bench.open() as running:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.request, contract.request())
            await park.reached()
            tasks.cancel_scope.cancel()
        park.release()
        _nothing(await bench.left(running), "a request that was cancelled while it waited below")


async def _refreshes(contract: Contract) -> None:
    bench = Bench(contract)
    async with bench.open() as running:
        conn = await running.request(contract.request())
        again = contract.request()
        again.connection.CopyFrom(conn)
        conn = await running.request(again)
        await running.close(conn)
        _nothing(await bench.left(running), "request, refresh and close")
        _expect(bench.bottom.seen.closes >= 1, "the close did not arrive below")


async def _closes(contract: Contract) -> None:
    bench = Bench(contract)
    async with bench.open() as running:
        await running.close(contract.request().connection)
        _nothing(await bench.left(running), "a close without a request")
    bench = Bench(contract)
    async with bench.open() as running:
        conn = await running.request(contract.request())
        await running.close(conn)
        await running.close(conn)
        _nothing(await bench.left(running), "two closes")


def _senseless(conn: Connection) -> list[Connection]:
    """Connections that a peer should not send, and may."""
    bare = Connection(id=conn.id)
    outside = copied(conn)
    outside.path.index = 17
    garbled = copied(conn)
    garbled.mechanism.CopyFrom(
        Mechanism(cls="?", type=conn.mechanism.type or "KERNEL", parameters={"mtu": "x", "inodeURL": "::", "vni": "-1"})
    )
    garbled.context.ip_context.src_ip_addrs.append("not an address")
    garbled.context.ip_context.excluded_prefixes.append("300.0.0.0/99")
    return [bare, outside, garbled]


async def _closes_anyway(contract: Contract) -> None:
    for number, kind in enumerate(("without a path", "with a path index out of range", "with garbage in it")):
        bench = Bench(contract)
        async with bench.open() as running:
            conn = await running.request(contract.request())
            call = running.call(state=None)
            call.state = next(iter(running.states), None)
            before = bench.bottom.seen.closes
            error: Exception | None = None
            try:
                # Bound alone: Begin would run the elements below whatever this one does.
                below = bench.bottom.bind(END)
                await bench.element.bind(below).close(call, _senseless(conn)[number])
            except NsmError as raised:
                error = raised
            _expect(
                bench.bottom.seen.closes > before,
                f"the close of a connection {kind} did not arrive below ({error or 'without an error'})",
            )


async def _separate(contract: Contract) -> None:
    bench = Bench(contract)
    async with bench.open() as running:
        first, second = contract.request(), contract.request()
        _rename(second.connection, "another")
        one = await running.request(first)
        alone = {id(state) for state in running.states}
        two = await running.request(second)
        first_holds = sorted(name for state in running.states if id(state) in alone for name in state.leftovers())
        held = sorted(name for state in running.states if id(state) not in alone for name in state.leftovers())
        _expect(first_holds == held, f"one connection keeps {first_holds}, another like it keeps {held}")
        await running.close(one)
        left = await bench.left(running)
        _expect(left.slots == held, f"after the close of one connection the slots are {left.slots}, not {held}")
        second.connection.CopyFrom(two)
        two = await running.request(second)
        await running.close(two)
        _nothing(await bench.left(running), "both closes")


def _rename(conn: Connection, id: str) -> None:
    conn.id = id
    if conn.path.index < len(conn.path.path_segments):
        conn.path.path_segments[conn.path.index].id = id


async def _shows(contract: Contract) -> None:
    bench = Bench(contract)
    text = repr(bench.element)
    _expect(type(bench.element).__name__ in text, f"the repr {text!r} does not name the class")
    tree = Chain("all", bench.element).tree()
    for secret in contract.secrets:
        _expect(secret not in text and secret not in tree, "the repr holds a secret")


CHECKS: Mapping[int, Callable[[Contract], Coroutine[Any, Any, None]]] = {
    1: _passes,
    2: _answers,
    3: _fails,
    4: _cancelled,
    5: _refreshes,
    6: _closes,
    7: _closes_anyway,
    8: _separate,
    9: _shows,
}
