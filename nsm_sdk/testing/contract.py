# SPDX-License-Identifier: Apache-2.0
"""The contract that every connection element keeps.

Does:  `check_element` runs nine points against an element and raises one error that lists all that are broken:

           1  fields it does not own pass unchanged, unknown ones included
           2  the answer is the one from below, apart from fields it owns
           3  an error from below comes out as the same object and leaves no slot, task or timer
           4  a caller that is cancelled while the element waits below leaves none either
           5  request, request again (a refresh), close: none left
           6  close without request, and close twice, succeed
           7  close goes on below even for a connection that makes no sense
           8  two connections do not see each other
           9  `repr` works unbound and holds no secret

Place: tests of elements, ours (run over every exported one) and yours.
State: none; each point runs with an element of its own, in virtual time.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import END, Chain, Element, Next
from nsm_sdk.errors import NsmError, ProgrammingError, Unavailable
from nsm_sdk.testing.doubles import FailTimes, Park, Probe, copied
from nsm_sdk.testing.rig import Left, Rig, rig
from nsm_sdk.testing.samples import sample_request
from nsm_sdk.testing.virtual import START_WALL, run_virtual

Factory = Callable[[], Element]


class ContractError(ProgrammingError):
    """An element breaks its contract; the message lists the points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What there is to know about an element before it can be checked."""

    factory: Factory | None = None
    """A new element with new services."""
    joined: Callable[[Next], Element] | None = None
    """Instead of `factory`, for an element that ends a chain and goes on by other means: given what is there."""
    request: Callable[[], Request] = sample_request
    """A request that the element can serve."""
    above: Callable[[], Sequence[Element]] = tuple
    """Elements that must stand above it, besides Begin."""
    below: Callable[[], Sequence[Element]] = tuple
    """Elements that must stand below it."""
    owns: frozenset[str] = frozenset()
    """Fields it may change, as dotted names in a Request: "connection.context.ip_context", "mechanism_preferences"."""
    secrets: tuple[str, ...] = ()
    """Texts that must not be in its repr."""
    keeps: frozenset[str] = frozenset()
    """Names of background tasks that its services begin with a request and keep; those begun at the start are known."""
    keeps_timers: int = 0
    """How many timers its services set with a request and keep."""
    skips: Mapping[int, str] = field(default_factory=dict)
    """Points that do not apply, with the reason."""

    def __post_init__(self) -> None:
        if (self.factory is None) == (self.joined is None):
            raise ProgrammingError("a Contract needs a factory", hint="give either factory= or joined=")


class Bench:
    """The element between doubles."""

    def __init__(self, contract: Contract, *doubles: Element) -> None:
        self.contract = contract
        self._start = Left()
        self.top, self.bottom = Probe(), Probe()
        rest = (self.bottom, *doubles)
        if contract.joined is not None:
            joined = Chain("below", *rest, *contract.below()).bind(END)
            self.element = contract.joined(joined)
            self.elements: tuple[Element, ...] = (*contract.above(), self.top, self.element)
        else:
            assert contract.factory is not None
            self.element = contract.factory()
            self.elements = (*contract.above(), self.top, self.element, *rest, *contract.below())

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Rig, None]:
        """The rig; what its services have begun at the start is theirs."""
        async with rig(*self.elements, check=False, begin=True) as running:
            self._start = await running.left()
            yield running

    async def left(self, running: Rig) -> Left:
        """What is left, without what the services keep."""
        left = await running.left()
        known = self.contract.keeps.union(self._start.tasks)
        left.tasks = [name for name in left.tasks if name not in known]
        left.timers = max(left.timers - self._start.timers - self.contract.keeps_timers, 0)
        return left


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


def check_element(
    factory: Factory | None = None, *, contract: Contract | None = None, points: Sequence[int] = tuple(POINTS)
) -> None:
    """Raise `ContractError` if an element breaks its contract.

    Either `factory`, for an element that needs nothing else, or a whole `contract`. Not to be called where a loop runs.
    """
    known = contract if contract is not None else Contract(factory=factory)
    broken: list[str] = []
    first: Exception | None = None
    for number in points:
        if number in known.skips:
            continue
        try:
            run_virtual(CHECKS[number], known, start_wall=START_WALL)
        except Exception as error:
            first = first or error
            kind = "" if isinstance(error, ContractError) else f"{type(error).__name__}: "
            broken.append(f"point {number} ({POINTS[number]}): {kind}{error}")
    if broken:
        raise ContractError(
            f"{type(Bench(known).element).__name__} breaks its contract:\n  " + "\n  ".join(broken),
            hint="mend the element, or say in its Contract what it owns, needs or leaves out, with the reason",
        ) from first
