# SPDX-License-Identifier: Apache-2.0
"""What to do about a connection: the decision of healing, as a pure function.

Does:  `decide(state, event, now)` answers the next state and what to do. Data down: select anew at once. Control down
       and data up: the same endpoint again, until its registration is gone or time runs short; then anew. Control down
       and nothing checks: anew. A manager that vanished is given time; its clients come back spread out.
Place: run by `Heal`; docs/explanation/healing.md has the table that is generated from it.
State: none.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias, assert_never

from nsm_sdk.heal.model import (
    MANAGER_GONE,
    Action,
    Attempt,
    By,
    Check,
    Checked,
    Closed,
    Control,
    Data,
    Due,
    Established,
    Event,
    Failed,
    Healing,
    Heard,
    Kind,
    Note,
    Phase,
    Refresh,
    Said,
    Sent,
    Skipped,
    Why,
)

Step: TypeAlias = tuple[Healing, list[Action]]

_MASK = (1 << 64) - 1
_CALM = 5.0
"""A wish for a refresh that comes so long after the last one starts a new series; seconds."""


def decide(state: Healing, event: Event, now: float) -> Step:
    """The next state, and what to do, in order. Total: every event may arrive in every state."""
    if state.phase is Phase.CLOSED:
        return state, []
    match event:
        case Established():
            return _established(state, event, now)
        case Failed():
            return _failed(state, event, now)
        case Skipped():
            return _skipped(state, now)
        case Sent():
            return (replace(state, stale=True), []) if event.reselect and not state.stale else (state, [])
        case Heard():
            return _heard(state, event, now)
        case Checked():
            return _checked(state, event, now)
        case Due():
            return _due(state, now)
        case Closed():
            return replace(state, phase=Phase.CLOSED, due=math.inf), [Note(kind=Kind.CLOSED, text="closed")]
        case _:
            assert_never(event)


# -- requests -------------------------------------------------------------------------------------------------------


def _established(state: Healing, event: Established, now: float) -> Step:
    facts: dict[str, Any] = {
        "known": True,
        "probed": event.probed,
        "endpoint": event.endpoint,
        "expires": event.expires,
        "lifetime": max(event.expires - now, 0.0),
        "timeout": event.timeout,
        "refresh_in": event.refresh_in,
        "plain": 0,
        "gone_since": math.inf,
        "reselected": event.reselect,
        "reselected_at": now if event.reselect else state.reselected_at,
        "fruitless": state.fruitless + event.reselect,
        "echoes": state.echoes or event.reselect,
        "posted": False,
    }
    refreshed = event.by is By.REFRESH and not event.reselect
    if refreshed and state.healing and state.reselects:
        # The same endpoint has confirmed what does not work; only selecting anew ends this healing.
        note = Note(kind=Kind.REFRESHED, text="refreshed, but the datapath is still to be repaired")
        return replace(state, **facts), [note]
    moved = bool(state.endpoint) and state.endpoint != event.endpoint
    if state.healing or state.phase is Phase.GIVEN_UP:
        note = _healed(state, now, moved, f"request of {event.by} succeeded at {event.endpoint or 'the endpoint'}")
    elif not state.known:
        note = Note(kind=Kind.UP, text=f"established at {event.endpoint or 'the endpoint'}", moved=False)
    else:
        text = f"moved to {event.endpoint}" if moved else "refreshed"
        note = Note(kind=Kind.REFRESHED, text=text, moved=moved)
    if not refreshed or state.healing:
        facts |= {"data": Data.UNCHECKED, "alive_at": -math.inf}
    wanted = state.wanted
    state = _at_rest(state, Control.UP, stale=state.stale or not state.known, wanted=False, **facts)
    if wanted:
        state, actions = _wish(state, now)
        return state, [note, *actions]
    return state, [note]


def _at_rest(state: Healing, control: Control, *, stale: bool, **facts: Any) -> Healing:
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


def _healed(state: Healing, now: float, moved: bool, text: str) -> Note:
    return Note(
        kind=Kind.HEALED, text=text, why=state.why, moved=moved, repair=now - state.began, attempts=state.attempts
    )


def _failed(state: Healing, event: Failed, now: float) -> Step:
    note = Note(kind=Kind.FAILED, text=f"request of {event.by} failed: {event.what}")
    state = replace(state, posted=False)
    if not state.known or state.phase is Phase.GIVEN_UP or event.fault:
        return state, [note]
    if event.by is By.OWN and state.phase is not Phase.TRYING:
        return state, [note]
    state = replace(state, plain=state.plain + (not state.reselects))
    if event.gone and not state.reselects:
        since = min(state.gone_since, now)
        state = replace(state, gone_since=since)
        flows = state.probed and state.data is Data.UP
        if not flows or now - since >= state.policy.gone_grace:
            return _gone(state, note, now)
    if event.by is By.OWN:
        return _after(note, _again(state, now))
    if state.healing:
        return state, [note]
    return _after(note, _begin(state, Why.REFRESH, f"a request failed: {event.what}", now))


def _gone(state: Healing, note: Note, now: float) -> Step:
    """The endpoint has left; there is nothing to wait for."""
    state = replace(state, reselects=True)
    if state.healing:
        return _after(note, _try(state, now, "the endpoint is gone"))
    return _after(note, _begin(state, Why.REFRESH, "the endpoint's registration is gone", now))


def _skipped(state: Healing, now: float) -> Step:
    if state.phase is not Phase.TRYING:
        return state, []
    return _again(state, now)


# -- news -----------------------------------------------------------------------------------------------------------


def _heard(state: Healing, event: Heard, now: float) -> Step:
    if not state.known or state.phase is Phase.GIVEN_UP:
        return state, []
    match event.said:
        case Said.UP:
            return _heard_up(state, now)
        case Said.REFRESH:
            return _heard_refresh(state, now)
        case Said.RESELECT:
            return _heard_reselect(state, now)
        case Said.DOWN:
            return _heard_down(state, event, now)
        case Said.LOST | Said.MISSING:
            return _heard_gone(state, event, now)
        case Said.REFUSED:
            text = f"the next hop does not let us watch: {event.what}"
            return replace(state, control=Control.UNKNOWN), [Note(kind=Kind.HEARD, text=text)]
        case _:
            assert_never(event.said)


def _heard_up(state: Healing, now: float) -> Step:
    if state.phase is Phase.WATCHING and state.control is Control.UP and not state.stale and not state.echoes:
        return state, []
    state = replace(state, stale=False, echoes=state.echoes and state.reselected)
    if state.phase is Phase.DOUBTING:
        state = _at_rest(state, Control.UP, stale=False)
        return state, [Note(kind=Kind.HEARD, text="it was the echo of our own close")]
    pausing = state.phase in (Phase.WAITING, Phase.CHECKING)
    # After a failed request only one that succeeds is believed: refreshing has left the matter to us.
    if pausing and not state.reselects and not state.plain and state.why is not Why.REFRESH:
        note = _healed(state, now, False, "the next hop says that the connection is up")
        return _at_rest(state, Control.UP, stale=False), [note]
    return replace(state, control=Control.UP), []


def _heard_refresh(state: Healing, now: float) -> Step:
    state, actions = _heard_up(state, now)
    if state.phase is not Phase.WATCHING:
        return state, actions
    note = Note(kind=Kind.HEARD, text="the path asks for a refresh")
    if state.posted:
        return replace(state, wanted=True), [*actions, note]
    state, more = _wish(state, now)
    return state, [*actions, note, *more]


def _wish(state: Healing, now: float) -> Step:
    """Post a refresh that the path asks for: at once, but slower and slower for one that asks again and again."""
    wishes = state.wishes if now - state.wished_at < _CALM + state.policy.longest_pause else 0
    pause, state = _pause(state, wishes)
    at = max(now, state.wished_at + pause) if wishes else now
    if at > now:
        return replace(state, wanted=True, due=at), []
    return replace(state, wanted=False, posted=True, wishes=wishes + 1, wished_at=now, due=math.inf), [Refresh()]


def _heard_reselect(state: Healing, now: float) -> Step:
    recent = now - state.reselected_at < state.policy.echo
    if state.reselected or state.echoes or recent or state.healing:
        # What the last request of ours said comes back: no order.
        return _heard_up(state, now)
    return _begin(replace(state, reselects=True), Why.ORDER, "the path asks us to select anew", now)


def _heard_down(state: Healing, event: Heard, now: float) -> Step:
    what = event.what or "the next hop says DOWN"
    note = Note(kind=Kind.DOWN, text=what)
    if state.phase is Phase.WATCHING and state.stale:
        state = replace(state, phase=Phase.DOUBTING, due=now + state.policy.doubt, wanted=False)
        return state, [Note(kind=Kind.DOUBT, text=f"{what}; it may be the echo of our own close")]
    if state.phase is Phase.DOUBTING:
        return state, []
    state = replace(state, control=Control.DOWN)
    if state.phase is Phase.WATCHING:
        return _after(note, _begin(state, Why.DOWN, what, now))
    if state.phase is Phase.WAITING and state.why in MANAGER_GONE:
        return _after(note, _go(replace(state, why=Why.DOWN, spread=False), now))
    # Each failed attempt makes the hops say DOWN again: no reason to hurry.
    return state, []


def _heard_gone(state: Healing, event: Heard, now: float) -> Step:
    lost = event.said is Said.LOST
    why = Why.LOST if lost else Why.MISSING
    what = event.what or ("the manager's stream broke" if lost else "the manager does not know the connection any more")
    state = replace(state, control=Control.UNKNOWN if lost else Control.DOWN)
    note = Note(kind=Kind.DOWN, text=what)
    if state.phase in (Phase.WATCHING, Phase.DOUBTING):
        return _after(note, _begin(state, why, what, now))
    if state.healing and not state.reselects:
        # From now on attempts are those of a client whose manager is away; one that is due stays so.
        return replace(state, why=why), [note]
    return state, [note]


# -- checks ---------------------------------------------------------------------------------------------------------


def _checked(state: Healing, event: Checked, now: float) -> Step:
    if not state.known:
        return state, []
    asked = event.asked and state.phase is Phase.CHECKING
    match event.alive:
        case None:
            state = replace(state, data=Data.UNCHECKED)
            note = Note(kind=Kind.CHECKED, text=f"the datapath could not be checked: {event.what}")
            return _after(note, _unchecked(state, now)) if asked else (state, [note] if event.asked else [])
        case True:
            state = replace(state, data=Data.UP, alive_at=now, fruitless=0)
            return _after(_check_note(event), _alive(state, now)) if asked else (state, [])
        case False:
            return _dead(state, event, now)
        case _:
            assert_never(event.alive)


def _check_note(event: Checked) -> Note:
    verdict = "up" if event.alive else "down"
    return Note(kind=Kind.CHECKED, text=f"the datapath is {verdict}" + (f": {event.what}" if event.what else ""))


def _alive(state: Healing, now: float) -> Step:
    """Asked before an attempt, and alive."""
    if state.spread:
        return _wait_spread(replace(state, spread=False), now)
    return _try(state, now, "the datapath is up: the same endpoint again")


def _dead(state: Healing, event: Checked, now: float) -> Step:
    alive_at = state.alive_at if event.since is None else max(event.since, state.alive_at)
    detect = now - alive_at if math.isfinite(alive_at) else None
    note = Note(kind=Kind.DOWN, text=f"the datapath is down: {event.what}", why=Why.DATA, detect=detect)
    if state.data is not Data.DOWN or not state.reselects:
        notes: list[Action] = [note]
    else:
        notes = []
    state = replace(state, data=Data.DOWN)
    if state.phase in (Phase.WATCHING, Phase.DOUBTING):
        state, actions = _begin(state, Why.DATA, f"the datapath is down: {event.what}", now)
        return state, [*notes, *actions]
    if state.phase is Phase.TRYING and not state.reselects:
        # The request under way may repair it; if it fails, the next one selects anew.
        return replace(state, reselects=True), notes
    if state.phase in (Phase.WAITING, Phase.CHECKING) and not state.reselects:
        state, actions = _try(replace(state, reselects=True, spread=False), now, "the datapath is down")
        return state, [*notes, *actions]
    return state, []


def _unchecked(state: Healing, now: float) -> Step:
    """About to make an attempt, and nobody can tell whether data flows."""
    if state.spread:
        return _wait_spread(replace(state, spread=False), now)
    if state.why is Why.REFRESH and state.plain < state.policy.plain_tries:
        return _try(state, now, "the same endpoint again")
    return _try(replace(state, reselects=True), now, "nothing says that the datapath is up")


# -- the loop -------------------------------------------------------------------------------------------------------


def _begin(state: Healing, why: Why, text: str, now: float) -> Step:
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
        return _after(note, _again(state, now))
    if why is Why.DATA and state.fruitless:
        # The last one did not help for a moment: whatever is wrong, hurrying makes it worse.
        pause, state = _pause(state, state.fruitless)
        return _after(note, _wait(state, pause, now))
    return _after(note, _go(state, now))


def _go(state: Healing, now: float) -> Step:
    """The next attempt's time has come, or the moment to find out whether it may wait."""
    if not state.reselects and now >= state.last_call:
        state = replace(state, reselects=True, spread=False)
        return _try(state, now, "the connection is about to expire")
    if state.reselects:
        return _try(state, now, "")
    if state.probed:
        return replace(state, phase=Phase.CHECKING, due=math.inf), [Check()]
    return _unchecked(state, now)


def _try(state: Healing, now: float, text: str) -> Step:
    number = state.attempts + 1
    reselect = state.reselects
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


def _again(state: Healing, now: float) -> Step:
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
        return _wait_spread(state, now)
    pause, state = _pause(state, max(state.attempts, 1))
    return _wait(state, pause, now)


def _pause(state: Healing, tries: int) -> tuple[float, Healing]:
    """0 after none, then doubling; shortened at random by up to a half."""
    if tries <= 0:
        return 0.0, state
    policy = state.policy
    longest = min(policy.first_pause * 2 ** min(tries - 1, 32), policy.longest_pause)
    part, state = _random(state)
    return longest * (1 - part / 2), state


def _wait_spread(state: Healing, now: float) -> Step:
    """All clients of the manager are in the same place: take a time of our own."""
    part, state = _random(state)
    window = state.policy.spread_unchecked
    if state.data is Data.UP and math.isfinite(state.refresh_in):
        # The steady rate of requests is one per refresh time, and refreshes go on meanwhile.
        window = state.policy.spread * state.refresh_in
    return _wait(state, window * part, now)


def _wait(state: Healing, pause: float, now: float) -> Step:
    at = now + pause
    if not state.reselects and state.last_call > now:
        at = min(at, state.last_call)
    note = Note(kind=Kind.WAIT, text=f"the next attempt is in {at - now:.2f} s")
    return replace(state, phase=Phase.WAITING, due=at), [note]


def _due(state: Healing, now: float) -> Step:
    if now < state.due:
        return state, []
    state = replace(state, due=math.inf)
    match state.phase:
        case Phase.WAITING:
            return _go(state, now)
        case Phase.DOUBTING:
            state = replace(state, phase=Phase.WATCHING, stale=False, control=Control.DOWN)
            text = "the next hop said DOWN and has not taken it back"
            return _after(Note(kind=Kind.DOWN, text=text), _begin(state, Why.DOWN, text, now))
        case Phase.WATCHING:
            return _wish(replace(state, wanted=False), now) if state.wanted else (state, [])
        case Phase.CHECKING | Phase.TRYING | Phase.GIVEN_UP | Phase.CLOSED:
            return state, []
        case _:
            assert_never(state.phase)


def _after(note: Note, step: Step) -> Step:
    state, actions = step
    return state, [note, *actions]


def _random(state: Healing) -> tuple[float, Healing]:
    """A number in [0, 1) and the state for the next one (splitmix64)."""
    seed = (state.random + 0x9E3779B97F4A7C15) & _MASK
    mixed: Any = seed
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((mixed ^ (mixed >> 31)) >> 11) / (1 << 53), replace(state, random=seed)
