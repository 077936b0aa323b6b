# SPDX-License-Identifier: Apache-2.0
"""Alternatives.

Does:  which branch is taken, that it stays the one until the close, and that what is left over is closed in it.
Place: nsm_sdk.elements.switch.
State: none.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection
from nsm_sdk.core import Call, Chain
from nsm_sdk.elements.begin import Begin
from nsm_sdk.elements.switch import Case, Condition, Switch, otherwise
from nsm_sdk.errors import ChainOrderError, ProgrammingError, Unavailable
from nsm_sdk.testing import FailTimes, Probe, rig, run_virtual, sample_request, virtual_time


def labelled(value: str) -> Condition:
    return lambda call, conn: conn.labels.get("to") == value


@virtual_time
async def test_the_first_that_holds_is_taken_and_the_chain_goes_on_below() -> None:
    a, b, below = Probe(), Probe(), Probe()
    switch = Switch(
        "to", Case("a", labelled("a"), a), Case("b", labelled("b"), b), Case("late", labelled("a"), Probe())
    )
    async with rig(Begin(), switch, below) as bench:
        for at, to in enumerate(("a", "b", "c")):
            conn = await bench.request(sample_request(f"c{at}", labels={"to": to}))
            await bench.close(conn)
        assert not await bench.left()
    assert a.seen.verbs == b.seen.verbs == ["request", "close"]
    assert below.seen.verbs == ["request", "close"] * 3


@virtual_time
async def test_the_choice_is_kept_until_the_close() -> None:
    a, other = Probe(), Probe()
    async with rig(Begin(), Switch("to", Case("a", labelled("a"), a), Case("other", otherwise, other))) as bench:
        await bench.request(sample_request(labels={"to": "a"}))
        await bench.request(sample_request(labels={"to": "b"}))
        await bench.close()
        await bench.request(sample_request(labels={"to": "b"}))
        await bench.close()
    assert a.seen.verbs == ["request", "request", "close"]
    assert other.seen.verbs == ["request", "close"]


@virtual_time
async def test_a_close_without_a_request_goes_past_all_branches() -> None:
    branch, below = Probe(), Probe()
    async with rig(Begin(), Switch("s", Case("a", otherwise, branch)), below) as bench:
        await bench.close(sample_request().connection)
    assert (branch.seen.closes, below.seen.closes) == (0, 1)


@virtual_time
async def test_a_first_request_that_fails_is_undone_in_its_branch() -> None:
    a, b = Probe(), Probe()
    fails = FailTimes(1, Unavailable("x"))
    switch = Switch("s", Case("a", labelled("a"), Chain("a", a, fails)), Case("b", otherwise, b))
    async with rig(Begin(), switch) as bench:
        with pytest.raises(Unavailable):
            await bench.request(sample_request(labels={"to": "a"}))
        assert not await bench.left()
    assert a.seen.verbs == ["request", "close"]
    assert b.seen.verbs == []


@virtual_time
async def test_after_a_failed_close_each_element_of_the_taken_branch_and_none_of_the_others_is_closed_alone() -> None:
    upper, lower, other, below = Probe(), Probe(), Probe(), Probe()
    fails = FailTimes(1, Unavailable("x"), verb="close")
    taken = Chain("taken", upper, fails, lower)
    switch = Switch("s", Case("a", labelled("a"), taken), Case("b", otherwise, other))
    async with rig(Begin(), switch, below) as bench:
        await bench.request(sample_request(labels={"to": "a"}))
        await bench.close()
        assert not await bench.left()
    assert lower.seen.closes == 1
    assert other.seen.verbs == []
    assert below.seen.closes == 1


@given(holds=st.lists(st.booleans(), max_size=5))
def test_the_first_true_condition_decides(holds: list[bool]) -> None:
    probes = [Probe() for _ in holds]

    def fixed(value: bool) -> Condition:
        def when(call: Call, conn: Connection) -> bool:
            return value

        return when

    cases = [Case(str(at), fixed(value), probes[at]) for at, value in enumerate(holds)]

    async def run() -> None:
        async with rig(Begin(), Switch("s", *cases)) as bench:
            await bench.request()
            await bench.close()

    run_virtual(run)
    taken = [at for at, probe in enumerate(probes) if probe.seen.calls]
    assert taken == ([holds.index(True)] if True in holds else [])


def test_branches_are_shown_and_checked() -> None:
    switch = Switch("s", Case("a", otherwise, Chain("inner", Probe())))
    assert "a: inner" in Chain("c", Begin(), switch).tree()
    with pytest.raises(ChainOrderError):
        Chain("c", switch).check()
    with pytest.raises(ProgrammingError):
        Switch("s", Case("a", otherwise, Probe()), Case("a", otherwise, Probe()))


def test_a_switch_without_a_name_does_not_lose_its_first_case() -> None:
    case: Any = Case("a", otherwise, Probe())
    with pytest.raises(ProgrammingError, match="argument 0 of a switch is Case") as caught:
        Switch(case, case)
    assert "Switch(" in caught.value.hint
    element: Any = Probe()
    with pytest.raises(ProgrammingError, match="argument 1"):
        Switch("s", element)
