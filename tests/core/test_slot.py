# SPDX-License-Identifier: Apache-2.0
"""Typed state of a connection."""

from __future__ import annotations

import pytest

from nsm_sdk.core import Call, Role, Slot, State
from nsm_sdk.errors import ProgrammingError


async def test_get_set_pop() -> None:
    slot = Slot[list[int]]("numbers")
    async with Role("hop").serving() as running:
        call = running.call(state=State())
        assert slot.get(call) is None
        numbers = [1]
        assert slot.set(call, numbers) is numbers
        assert slot.get(call) is numbers
        assert slot.pop(call) is numbers
        assert slot.pop(call) is None


async def test_slots_of_one_name_are_different_and_states_are_apart() -> None:
    one, other = Slot[int]("same"), Slot[int]("same")
    async with Role("hop").serving() as running:
        first, second = running.call(state=State()), running.call(state=State())
        one.set(first, 1)
        other.set(first, 2)
        assert (one.get(first), other.get(first), one.get(second)) == (1, 2, None)
        assert first.state is not None
        assert first.state.leftovers() == ["same", "same"]


async def test_a_later_call_with_the_same_state_sees_the_value() -> None:
    slot, state = Slot[int]("kept"), State()
    async with Role("hop").serving() as running:
        slot.set(running.call(state=state), 1)
        assert slot.get(running.call(state=state)) == 1


async def test_a_none_that_was_set_is_left_over() -> None:
    slot, state = Slot[None]("nothing"), State()
    async with Role("hop").serving() as running:
        slot.set(running.call(state=state), None)
    assert state.leftovers() == ["nothing"]


@pytest.mark.parametrize("act", ["get", "set", "pop"])
async def test_without_state_the_slot_is_named(act: str) -> None:
    slot = Slot[int]("lease")
    acts = {"get": slot.get, "set": lambda call: slot.set(call, 1), "pop": slot.pop}
    async with Role("hop").serving() as running:
        call: Call = running.call()
        with pytest.raises(ProgrammingError, match="'lease' used where no Begin"):
            acts[act](call)


def test_its_repr_is_its_name() -> None:
    assert repr(Slot[int]("lease")) == "Slot('lease')"
