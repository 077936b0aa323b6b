# SPDX-License-Identifier: Apache-2.0
"""The loop of healing: attempts, and the pauses between them.

Does:  begins when there is trouble, makes an attempt or finds out whether it may wait, and says when the next one is
       due: at once, after a growing pause, or at a time of its own where all clients of a manager are in the same
       place.
Place: part of `decide`.
State: none.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from nsm_sdk.heal.model import MANAGER_GONE, Control, Data, Healing, Phase, Why, replace
from nsm_sdk.heal.steps import Action, Attempt, Check, Kind, Note

Step: TypeAlias = tuple[Healing, list[Action]]

_MASK = (1 << 64) - 1


def begin(state: Healing, why: Why, text: str, now: float) -> Step:
    """Trouble: start healing."""
    note = Note(kind=Kind.HEALING, text=text, why=why)
    state = replace(
        state,
        phase=Phase.WAITING,
        why=why,
        began=now,
        attempts=0,
        reselects=state.reselects or why in (Why.DATA, Why.ORDER),
        spread=why in MANAGER_GONE and not state.reselects,
        wanted=False,
        due=math.inf,
    )
    if why is Why.REFRESH and not state.reselects:
        # The failed request was the first attempt.
        return after(note, again(state, now))
    if why is Why.DATA and state.fruitless:
        # The last one did not help for a moment: whatever is wrong, hurrying makes it worse.
        pause, state = pause_after(state, state.fruitless)
        return after(note, wait(state, pause, now))
    return after(note, go(state, now))


def go(state: Healing, now: float) -> Step:
    """The next attempt's time has come, or the moment to find out whether it may wait."""
    if not state.reselects and now >= state.last_call:
        state = replace(state, reselects=True, spread=False)
        return attempt(state, now, "the connection is about to expire")
    if state.reselects:
        return attempt(state, now, "")
    if state.probed:
        return replace(state, phase=Phase.CHECKING, due=math.inf), [Check()]
    return unchecked(state, now)


def attempt(state: Healing, now: float, text: str) -> Step:
    if now < state.not_before:
        return wait(replace(state, spread=False), 0.0, now)
    number, reselect = state.attempts + 1, state.reselects
    what = "select anew" if reselect else "request again"
    note = Note(kind=Kind.ATTEMPT, text=f"attempt {number}: {what}" + (f"; {text}" if text else ""), attempts=number)
    state = replace(
        state,
        phase=Phase.TRYING,
        attempts=number,
        due=math.inf,
        spread=False,
        anew=reselect,
        stale=state.stale or reselect,
    )
    return state, [note, Attempt(reselect=reselect, number=number)]


def again(state: Healing, now: float) -> Step:
    """An attempt failed: when is the next?"""
    limit = state.policy.attempts
    if (limit and state.attempts >= limit) or now - state.began >= state.policy.patience:
        note = Note(
            kind=Kind.GAVE_UP,
            text=f"gave up after {state.attempts} attempts",
            why=state.why,
            attempts=state.attempts,
        )
        return replace(state, phase=Phase.GIVEN_UP, due=math.inf), [note]
    if not state.reselects and state.probed and state.data is Data.UP and state.why in MANAGER_GONE:
        return wait_spread(state, now, again=True)
    pause, state = pause_after(state, max(state.attempts, 1))
    return wait(state, pause, now)


def pause_after(state: Healing, tries: int) -> tuple[float, Healing]:
    """0 after none, then doubling; shortened at random by up to a half."""
    if tries <= 0:
        return 0.0, state
    policy = state.policy
    longest = min(policy.first_pause * 2 ** min(tries - 1, 32), policy.longest_pause)
    part, state = roll(state)
    return longest * (1 - part / 2), state


def wait_spread(state: Healing, now: float, *, again: bool = False) -> Step:
    """All clients of the manager are in the same place: take a time of our own, and keep to it `again` and again.

    One that were drawn anew each time would come sooner as a rule, and all of them together twice as often.
    """
    part, state = roll(state)
    window = state.policy.spread_unchecked
    if state.data is Data.UP:
        # Data that flows can wait, but a manager that does not know the connection has no news for it.
        window = min(state.policy.spread * state.refresh_in, state.policy.longest_spread)
    left = state.last_call - state.timeout - now
    if window <= left:
        return wait(state, window if again else window * part, now)
    # The same endpoint is asked at least once more before its time is up: it may be well.
    pause, state = pause_after(state, max(state.attempts, 1))
    return wait(state, max(left * part, pause), now)


def wait(state: Healing, pause: float, now: float) -> Step:
    at = now + pause
    if not state.reselects and state.last_call > now:
        at = min(at, state.last_call)
    at = max(at, state.not_before)
    note = Note(kind=Kind.WAIT, text=f"the next attempt is in {at - now:.2f} s")
    return replace(state, phase=Phase.WAITING, due=at), [note]


def unchecked(state: Healing, now: float) -> Step:
    """About to make an attempt, and nobody can tell whether data flows."""
    if state.spread:
        return wait_spread(replace(state, spread=False), now)
    if state.why is Why.REFRESH and state.plain < state.policy.plain_tries:
        return attempt(state, now, "the same endpoint again")
    return attempt(replace(state, reselects=True), now, "nothing says that the datapath is up")


def at_rest(state: Healing, control: Control, *, stale: bool, **facts: Any) -> Healing:
    return replace(
        state,
        **facts,
        phase=Phase.WATCHING,
        control=control,
        why=None,
        due=math.inf,
        attempts=0,
        reselects=False,
        spread=False,
        stale=stale,
    )


def healed(state: Healing, now: float, moved: bool, text: str) -> Note:
    return Note(
        kind=Kind.HEALED, text=text, why=state.why, moved=moved, repair=now - state.began, attempts=state.attempts
    )


def after(note: Note, step: Step) -> Step:
    state, actions = step
    return state, [note, *actions]


def roll(state: Healing) -> tuple[float, Healing]:
    """A number in [0, 1) and the state for the next one (splitmix64)."""
    seed = (state.random + 0x9E3779B97F4A7C15) & _MASK
    mixed: Any = seed
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((mixed ^ (mixed >> 31)) >> 11) / (1 << 53), replace(state, random=seed)
