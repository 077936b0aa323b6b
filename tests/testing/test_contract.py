# SPDX-License-Identifier: Apache-2.0
"""Every exported connection element keeps the contract, and the suite finds elements that do not."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next, Slot
from nsm_sdk.errors import NsmError, ProgrammingError
from nsm_sdk.testing import POINTS, Contract, ContractError, check_element
from tests.testing.contract_table import TABLE

ROOMS = ("elements", "registry", "mechanisms", "ipam", "heal", "security", "dns", "vl3")


def exported() -> dict[str, type[Element]]:
    """Every element class that a room exports, by name."""
    found: dict[str, type[Element]] = {}
    for room in ROOMS:
        module = importlib.import_module(f"nsm_sdk.{room}")
        for name in getattr(module, "__all__", ()):
            kind = getattr(module, name)
            if isinstance(kind, type) and issubclass(kind, Element) and not inspect.isabstract(kind):
                found[name] = kind
    return found


EXPORTED = exported()


def contract_of(name: str) -> Contract:
    """The entry of the table, or one that builds the element without arguments."""
    entry = TABLE.get(name)
    if entry is not None:
        return entry
    kind: Any = EXPORTED[name]
    try:
        kind()
    except TypeError as error:
        pytest.fail(
            f"{name} is exported by {kind.__module__.rsplit('.', 1)[0]} but cannot be built without arguments"
            f" ({error}): add an entry {name!r} to TABLE in tests/testing/contract_table.py"
        )
    return Contract(factory=kind)


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_an_exported_element_keeps_the_contract(name: str) -> None:
    check_element(contract=contract_of(name))


def test_the_table_has_no_entry_for_what_is_not_exported() -> None:
    assert sorted(set(TABLE) - set(EXPORTED)) == []


def test_points_that_are_left_out_have_a_reason() -> None:
    for name, entry in TABLE.items():
        for point, reason in entry.skips.items():
            assert point in POINTS, name
            assert len(reason) > 10, name


# -- elements that break one point each ---------------------------------------------------------------------------


class Passes(Element):
    """Keeps the contract."""

    def __init__(self) -> None:
        self._kept = Slot[int]("kept")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self._kept.set(call, 1)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._kept.pop(call)
        await next.close(call, conn)


class ChangesRequest(Passes):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        request.connection.labels.clear()
        return await super().request(call, request, next)


class DropsUnknown(Passes):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        request.DiscardUnknownFields()
        return await super().request(call, request, next)


class ChangesAnswer(Passes):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await super().request(call, request, next)
        conn.labels["mine"] = "yes"
        return conn


class WrapsErrors(Passes):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        try:
            return await super().request(call, request, next)
        except NsmError as error:
            raise ProgrammingError("mine") from error


class LeaksSlots(Passes):
    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        await next.close(call, conn)


class LeaksTimers(Passes):
    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.runtime.after(1e6, lambda: None)
        return await super().request(call, request, next)


class NeedsARequest(Passes):
    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if self._kept.pop(call) is None:
            raise ProgrammingError("no request")
        await next.close(call, conn)


class StopsTheClose(Passes):
    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if not conn.path.path_segments:
            raise ProgrammingError("no path")
        await super().close(call, conn, next)


class ForgetsTheClose(Passes):
    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        self._kept.pop(call)


class Shared(Passes):
    """Mixes connections up: keeps everything in the state of the first."""

    def __init__(self) -> None:
        super().__init__()
        self._first: Any = None

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        self._first = self._first or call.state
        self._first[self._kept] = 1
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if self._first is not None:
            self._first.pop(self._kept, None)
        await next.close(call, conn)


class Tells(Passes):
    def __init__(self, password: str = "hunter2") -> None:
        super().__init__()
        self.password = password


def test_an_element_that_keeps_the_contract_passes() -> None:
    check_element(Passes)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        (ChangesRequest, {1}),
        (DropsUnknown, {1}),
        (ChangesAnswer, {2}),
        (WrapsErrors, {3}),
        (LeaksSlots, {3, 4, 5, 6, 8}),
        (LeaksTimers, {3, 4, 5, 6, 8}),
        (NeedsARequest, {6}),
        (StopsTheClose, {7}),
        (ForgetsTheClose, {5, 7}),
    ],
)
def test_a_broken_element_is_found(kind: type[Element], points: set[int]) -> None:
    with pytest.raises(ContractError) as caught:
        check_element(kind)
    named = {number for number in POINTS if f"point {number} (" in caught.value.message}
    assert named == points
    assert kind.__name__ in caught.value.message


def test_connections_that_are_mixed_up_are_found() -> None:
    with pytest.raises(ContractError):
        check_element(Shared, points=[8])


def test_a_secret_in_the_repr_is_found() -> None:
    with pytest.raises(ContractError, match="secret"):
        check_element(contract=Contract(factory=Tells, secrets=("hunter2",)), points=[9])


def test_a_skipped_point_is_not_run() -> None:
    check_element(contract=Contract(factory=ChangesAnswer, skips={2: "it changes the answer on purpose"}))


def test_fields_it_owns_may_change() -> None:
    check_element(contract=Contract(factory=ChangesAnswer, owns=frozenset({"connection.labels"})))


def test_a_contract_without_a_factory_is_refused() -> None:
    with pytest.raises(ProgrammingError, match="factory"):
        Contract()
