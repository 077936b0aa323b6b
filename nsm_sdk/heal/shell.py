# SPDX-License-Identifier: Apache-2.0
"""What surrounds the decision: events go in, and what comes out is done.

Does:  feeds `decide`; runs attempts by way of `Begin`, checks, timers; writes journals and publishes happenings.
Place: used by `Heal`.
State: none of its own; it works on `Held`.
"""

from __future__ import annotations

import math
from typing import assert_never

from nsm_sdk.api import Request, Snapshot
from nsm_sdk.core import Outcome
from nsm_sdk.errors import NotReached, pushback
from nsm_sdk.heal import steps
from nsm_sdk.heal.decide import decide
from nsm_sdk.heal.happenings import Event as What
from nsm_sdk.heal.happenings import Happening, Happenings
from nsm_sdk.heal.held import Held, is_fault, is_gone
from nsm_sdk.heal.journal import Entry, Journals
from nsm_sdk.heal.model import By, Data, Phase
from nsm_sdk.heal.moving import Edit
from nsm_sdk.heal.probes.probe import Verdict
from nsm_sdk.heal.steps import Kind, Note

_TOLD = {
    Kind.UP: What.UP,
    Kind.DOWN: What.DOWN,
    Kind.HEALING: What.HEALING,
    Kind.HEALED: What.HEALED,
    Kind.REFRESHED: What.REFRESHED,
    Kind.GAVE_UP: What.GAVE_UP,
    Kind.CLOSED: What.CLOSED,
}


class Shell:
    """Decides and acts for all connections of one `Heal`; the arguments are those of `Heal`."""

    def __init__(
        self, journals: Journals, happenings: Happenings, *, reselect: Edit, offer_addresses: bool, closes: bool
    ) -> None:
        self.journals = journals
        self.happenings = happenings
        self._reselect = reselect
        self._offer_addresses = offer_addresses
        self._closes = closes

    def feed(self, held: Held, event: steps.Event) -> None:
        """Something has happened to a connection: decide, and act."""
        now = held.runtime.clock.now()
        before = held.state
        held.state, actions = decide(before, event, now)
        if held.state is before and not actions:
            return
        if not held.state.watches_data:
            held.unwatch()
        if held.state.due != before.due or held.timer is None:
            self._arm(held)
        for action in actions:
            self._act(held, action)

    def failed(self, held: Held, by: By, error: BaseException | None) -> None:
        """A request has failed."""
        event = steps.Failed(
            by=by,
            what=str(error) or type(error).__name__,
            gone=is_gone(error, held.state.endpoint),
            fault=is_fault(error, external=by is By.EXTERNAL),
            reached=not isinstance(error, NotReached),
            pushback=pushback(error),
        )
        self.feed(held, event)

    def _arm(self, held: Held) -> None:
        held.stop_timer()
        due = held.state.due
        if due < math.inf:
            held.timer = held.runtime.timers.at(due, lambda: self._due(held))

    def _due(self, held: Held) -> None:
        held.timer = None
        self.feed(held, steps.Due())

    def _act(self, held: Held, action: steps.Action) -> None:
        match action:
            case steps.Attempt():
                self._attempt(held, action.reselect)
            case steps.Check():
                self._check(held)
            case steps.Refresh():
                held.events.refresh()
            case steps.Note():
                self._note(held, action)
            case _:
                assert_never(action)

    def _attempt(self, held: Held, reselect: bool) -> None:
        held.token += 1
        token = held.token

        def still() -> bool:
            return held.token == token and held.state.phase is Phase.TRYING

        def done(outcome: Outcome, error: BaseException | None) -> None:
            if not still():
                return
            if outcome is Outcome.FAILED:
                self.failed(held, By.OWN, error)
            else:
                self.feed(held, steps.Skipped())

        def edit(request: Request) -> None:
            # First, so that the edit may put in what it likes.
            held.given.strip(request, addresses=not self._offer_addresses)
            self._reselect(request)

        if not reselect:
            held.events.refresh(done, still)
            return
        held.events.reselect(edit, done, still)
        if held.state.data is Data.DOWN:
            # It would have to wait for whatever still asks the endpoint that is dead.
            held.end_refresh()

    def _check(self, held: Held) -> None:
        def tell(verdict: Verdict) -> None:
            self.feed(held, steps.Checked(alive=verdict.alive, what=verdict.why, asked=True))

        if held.regular is None:
            held.runtime.after(0.0, lambda: tell(Verdict(None, "nothing checks it")))
        else:
            held.regular.ask(tell)

    def _note(self, held: Held, note: Note) -> None:
        clock = held.runtime.clock
        entry = self.journals.note(held.journal, note, clock.now(), clock.wall())
        if note.kind in _TOLD:
            self.happenings.publish(_happening(held.id, _TOLD[note.kind], entry, held.conn))
        if note.kind is Kind.GAVE_UP and self._closes:
            held.events.close()


def _happening(id: str, what: What, entry: Entry, conn: Snapshot | None) -> Happening:
    return Happening(
        event=what,
        id=id,
        why=entry.text,
        moved=bool(entry.moved),
        snapshot=conn,
        at=entry.at,
        wall=entry.wall,
        detect=entry.detect,
        repair=entry.repair,
        attempts=entry.attempts,
    )
