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
from typing import Any, assert_never

from nsm_sdk.heal.loop import Step, after, again, at_rest, attempt, begin, go, healed, unchecked, wait_spread
from nsm_sdk.heal.model import MANAGER_GONE, By, Control, Data, Healing, Phase, Why, replace
from nsm_sdk.heal.news import heard, wish
from nsm_sdk.heal.steps import (
    Action,
    Checked,
    Closed,
    Due,
    Established,
    Event,
    Failed,
    Heard,
    Kind,
    Note,
    Sent,
    Skipped,
)


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
            return heard(state, event, now)
        case Checked():
            return _checked(state, event, now)
        case Due():
            return _due(state, now)
        case Closed():
            return replace(state, phase=Phase.CLOSED, due=math.inf), [Note(kind=Kind.CLOSED, text="closed")]
        case _:
            assert_never(event)


# -- requests ---------------------------------------------------------------------------------------------------------


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
        note = healed(state, now, moved, f"request of {event.by} succeeded at {event.endpoint or 'the endpoint'}")
    elif not state.known:
        note = Note(kind=Kind.UP, text=f"established at {event.endpoint or 'the endpoint'}", moved=False)
    else:
        text = f"moved to {event.endpoint}" if moved else "refreshed"
        note = Note(kind=Kind.REFRESHED, text=text, moved=moved)
    if not refreshed or state.healing:
        facts |= {"data": Data.UNCHECKED, "alive_at": -math.inf}
    wanted = state.wanted
    state = at_rest(state, Control.UP, stale=state.stale or not state.known, wanted=False, **facts)
    if wanted:
        state, actions = wish(state, now)
        return state, [note, *actions]
    return state, [note]


def _failed(state: Healing, event: Failed, now: float) -> Step:
    note = Note(kind=Kind.FAILED, text=f"request of {event.by} failed: {event.what}")
    state = replace(state, posted=False)
    if event.pushback:
        state = replace(state, not_before=max(state.not_before, now + event.pushback))
    if not state.known or state.phase is Phase.GIVEN_UP or event.fault:
        return state, [note]
    if event.by is By.OWN and state.phase is not Phase.TRYING:
        return state, [note]
    # That a manager which is known to be gone is still gone is no news of the connection.
    away = event.by is By.OWN and not event.reached and state.why in MANAGER_GONE
    state = replace(state, plain=state.plain + (not state.reselects and not away))
    if event.gone and not state.reselects:
        since = min(state.gone_since, now)
        state = replace(state, gone_since=since)
        flows = state.probed and state.data is Data.UP
        if not flows or now - since >= state.policy.gone_grace:
            return _gone(state, note, now)
    if event.by is By.OWN:
        return after(note, again(state, now))
    if state.healing:
        return state, [note]
    return after(note, begin(state, Why.REFRESH, f"a request failed: {event.what}", now))


def _gone(state: Healing, note: Note, now: float) -> Step:
    """The endpoint has left; there is nothing to wait for."""
    state = replace(state, reselects=True)
    if state.healing:
        return after(note, attempt(state, now, "the endpoint is gone"))
    return after(note, begin(state, Why.REFRESH, "the endpoint's registration is gone", now))


def _skipped(state: Healing, now: float) -> Step:
    if state.phase is not Phase.TRYING:
        return state, []
    return again(state, now)


# -- checks -----------------------------------------------------------------------------------------------------------


def _checked(state: Healing, event: Checked, now: float) -> Step:
    if not state.known:
        return state, []
    asked = event.asked and state.phase is Phase.CHECKING
    match event.alive:
        case None:
            state = replace(state, data=Data.UNCHECKED)
            note = Note(kind=Kind.CHECKED, text=f"the datapath could not be checked: {event.what}")
            return after(note, unchecked(state, now)) if asked else (state, [note] if event.asked else [])
        case True:
            state = replace(state, data=Data.UP, alive_at=now, fruitless=0)
            return after(_check_note(event), _alive(state, now)) if asked else (state, [])
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
        return wait_spread(replace(state, spread=False), now)
    return attempt(state, now, "the datapath is up: the same endpoint again")


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
        state, actions = begin(state, Why.DATA, f"the datapath is down: {event.what}", now)
        return state, [*notes, *actions]
    if state.healing and not state.reselects:
        # An attempt at the old endpoint that is under way is not waited for: this one takes its place.
        state, actions = attempt(replace(state, reselects=True, spread=False), now, "the datapath is down")
        return state, [*notes, *actions]
    return state, []


# -- time -------------------------------------------------------------------------------------------------------------


def _due(state: Healing, now: float) -> Step:
    if now < state.due:
        return state, []
    state = replace(state, due=math.inf)
    match state.phase:
        case Phase.WAITING:
            return go(state, now)
        case Phase.DOUBTING:
            state = replace(state, phase=Phase.WATCHING, stale=False, control=Control.DOWN)
            text = "the next hop said DOWN and has not taken it back"
            return after(Note(kind=Kind.DOWN, text=text), begin(state, Why.DOWN, text, now))
        case Phase.WATCHING:
            return wish(replace(state, wanted=False), now) if state.wanted else (state, [])
        case Phase.CHECKING | Phase.TRYING | Phase.GIVEN_UP | Phase.CLOSED:
            return state, []
        case _:
            assert_never(state.phase)
