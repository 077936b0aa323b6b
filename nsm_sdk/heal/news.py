# SPDX-License-Identifier: Apache-2.0
"""What the next hop says, and what it means for a connection.

Does:  tells real trouble from the echo of what this client has done itself, and grants the refreshes that a path asks
       for, slower and slower for one that asks again and again.
Place: part of `decide`.
State: none.
"""

from __future__ import annotations

import math
from typing import assert_never

from nsm_sdk.heal.loop import Step, after, at_rest, begin, go, healed, pause_after
from nsm_sdk.heal.model import MANAGER_GONE, Control, Healing, Phase, Said, Why, replace
from nsm_sdk.heal.steps import Heard, Kind, Note, Refresh

_CALM = 5.0
"""A wish for a refresh that comes so long after the last one starts a new series; seconds."""


def heard(state: Healing, event: Heard, now: float) -> Step:
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
        state = at_rest(state, Control.UP, stale=False)
        return state, [Note(kind=Kind.HEARD, text="it was the echo of our own close")]
    pausing = state.phase in (Phase.WAITING, Phase.CHECKING)
    # After a failed request only one that succeeds is believed: refreshing has left the matter to us.
    if pausing and not state.reselects and not state.plain and state.why is not Why.REFRESH:
        note = healed(state, now, False, "the next hop says that the connection is up")
        return at_rest(state, Control.UP, stale=False), [note]
    return replace(state, control=Control.UP), []


def _heard_refresh(state: Healing, now: float) -> Step:
    state, actions = _heard_up(state, now)
    if state.phase is not Phase.WATCHING:
        return state, actions
    note = Note(kind=Kind.HEARD, text="the path asks for a refresh")
    if state.posted:
        return replace(state, wanted=True), [*actions, note]
    state, more = wish(state, now)
    return state, [*actions, note, *more]


def wish(state: Healing, now: float) -> Step:
    """Post a refresh that the path asks for: at once, but slower and slower for one that asks again and again."""
    wishes = state.wishes if now - state.wished_at < _CALM + state.policy.longest_pause else 0
    pause, state = pause_after(state, wishes)
    at = max(now, state.wished_at + pause, state.not_before) if wishes else max(now, state.not_before)
    if at > now:
        return replace(state, wanted=True, due=at), []
    return replace(state, wanted=False, posted=True, wishes=wishes + 1, wished_at=now, due=math.inf), [Refresh()]


def _heard_reselect(state: Healing, now: float) -> Step:
    recent = now - state.reselected_at < state.policy.echo
    if state.reselected or state.echoes or recent or state.healing:
        # What the last request of ours said comes back: no order.
        return _heard_up(state, now)
    return begin(replace(state, reselects=True), Why.ORDER, "the path asks us to select anew", now)


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
        return after(note, begin(state, Why.DOWN, what, now))
    if state.phase is Phase.WAITING and state.why in MANAGER_GONE:
        return after(note, go(replace(state, why=Why.DOWN, spread=False), now))
    # Each failed attempt makes the hops say DOWN again: no reason to hurry.
    return state, []


def _heard_gone(state: Healing, event: Heard, now: float) -> Step:
    lost = event.said is Said.LOST
    why = Why.LOST if lost else Why.MISSING
    what = event.what or ("the manager's stream broke" if lost else "the manager does not know the connection any more")
    state = replace(state, control=Control.UNKNOWN if lost else Control.DOWN)
    note = Note(kind=Kind.DOWN, text=what)
    if state.phase in (Phase.WATCHING, Phase.DOUBTING):
        return after(note, begin(state, why, what, now))
    if state.healing and not state.reselects:
        # From now on attempts are those of a client whose manager is away; one that is due stays so.
        return replace(state, why=why), [note]
    return state, [note]
