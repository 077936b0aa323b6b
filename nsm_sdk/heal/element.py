# SPDX-License-Identifier: Apache-2.0
"""Keep a connection alive: look at the datapath before moving, and move at once when it is dead.

Does:  feeds `decide` with what the next hop says, what checks of the datapath say, and how requests end; runs what it
       answers: requests and reselects by way of `Begin`, checks, timers, journal entries. Also refreshes when the path
       asks for it (state REFRESH_REQUESTED), even before the first Request has returned.
Place: below `Refresh`, above the mechanisms and `Connect`, in clients. Needs no probe; says nothing on the wire but
       Requests, Closes and one monitor stream per peer.
State: `Held`, in a slot that outlives a reselect; journals and streams of happenings, by connection id.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import assert_never

from nsm_sdk.api import Connection, ConnectionContext, Request, Snapshot, State, expiry
from nsm_sdk.core import Call, Cause, Element, Next, Outcome, Service, Slot
from nsm_sdk.elements import FAR, REFRESHING, Begin, Follower, Refresh, refresh_after
from nsm_sdk.elements import Heard as HeardNews
from nsm_sdk.heal import model
from nsm_sdk.heal.decide import decide
from nsm_sdk.heal.happenings import Event as What
from nsm_sdk.heal.happenings import Happening, Happenings
from nsm_sdk.heal.held import Held, Standing, is_fault, is_gone
from nsm_sdk.heal.journal import Entry, Journals
from nsm_sdk.heal.model import By, Healing, Kind, Note, Phase, Policy
from nsm_sdk.heal.moving import Edit, select_anew
from nsm_sdk.heal.probes.base import Probe, Target, Verdict
from nsm_sdk.heal.probes.regular import Liveness

_TOLD = {
    Kind.UP: What.UP,
    Kind.DOWN: What.DOWN,
    Kind.HEALING: What.HEALING,
    Kind.HEALED: What.HEALED,
    Kind.REFRESHED: What.REFRESHED,
    Kind.GAVE_UP: What.GAVE_UP,
    Kind.CLOSED: What.CLOSED,
}
_TROUBLED = frozenset({Phase.WATCHING, Phase.DOUBTING})


class Heal(Element):
    """Heal the connections of this client.

    `probe` checks datapaths (`Auto()` chooses per connection; none: only the control plane is believed). `reselect`
    edits the request that selects anew. `offer_addresses`: the new request brings the last addresses, which an endpoint
    that knows them gives again. `namespace` is where the near ends of connections are. `closes`: a connection that is
    given up is closed. `seed` makes the random parts of waiting times repeatable.
    """

    unique = True
    needs = (Begin,)
    after = (Refresh,)

    def __init__(
        self,
        probe: Probe | None = None,
        *,
        liveness: Liveness | None = None,
        policy: Policy | None = None,
        reselect: Edit = select_anew,
        offer_addresses: bool = True,
        namespace: str | int = "",
        closes: bool = False,
        follower: Follower | None = None,
        journals: Journals | None = None,
        happenings: Happenings | None = None,
        seed: int | None = None,
    ) -> None:
        self.probe = probe
        self.liveness = liveness or Liveness()
        self.policy = policy or Policy()
        self.reselect = reselect
        self.offer_addresses = offer_addresses
        self.namespace = namespace
        self.closes = closes
        self.journals = Journals() if journals is None else journals
        self.happenings = Happenings() if happenings is None else happenings
        self._follower = follower or Follower()
        self._dice = None if seed is None else random.Random(seed)
        self._held: Slot[Held] = Slot("heal")
        self._open: dict[str, Held] = {}
        self._wishes: dict[str, ConnectionContext] = {}

    def services(self) -> Iterable[Service]:
        return (self._follower,) if self.probe is None else (self._follower, self.probe)

    def takes_up(self, id: str, wishes: ConnectionContext | None) -> None:
        """The next request of connection `id` takes up what an earlier run has left; `wishes` are the application's,
        all else in its context was given. None: it does not come."""
        if wishes is None:
            self._wishes.pop(id, None)
        else:
            self._wishes[id] = wishes

    def standing(self, id: str) -> Standing | None:
        """Where healing of connection `id` stands; None for one that is not open."""
        held = self._open.get(id)
        return None if held is None else held.status()

    # -- requests and closes ----------------------------------------------------------------------------------------

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        held = self._held.get(call) or self._held.set(call, self._new(call, request.connection))
        reselect = request.connection.state == State.RESELECT_REQUESTED
        by = _by(held, call)
        if by is By.EXTERNAL:
            held.events = call.events
            held.given.asked(request, self._wishes.pop(held.id, None))
            held.timeout = call.remaining() if 0 < call.remaining() < math.inf else held.timeout
        if held.tidy:
            held.given.tidy(request)
        self._take_over_from_refresh(call, held)
        if reselect:
            self._feed(held, model.Sent(reselect=True))
        watch = held.regular
        if watch is not None:
            watch.hold()
        since = self._follower.mark()
        try:
            conn = await self._passed_on(call, request, next, held, by)
            self._established(call, held, conn, by, reselect)
            self._follow(call, conn, held, since)
            if held.tidy:
                held.events.refresh()
        finally:
            if watch is not None:
                watch.go_on()
        return conn

    async def _passed_on(self, call: Call, request: Request, next: Next, held: Held, by: By) -> Connection:
        try:
            return await next.request(call, request)
        except BaseException as error:
            # An attempt of our own reports by way of Begin, which also knows of those that never got here.
            if by is not By.OWN:
                self._feed(held, self._failure(held, by, error))
            raise

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        held = self._held.get(call)
        if held is not None:
            # What is being taken down must not be mistaken for what has died.
            held.unwatch()
            if call.cause is not Cause.RESELECT:
                self._held.pop(call)
                self._end(held)
        await next.close(call, conn)

    def _dice_of(self, call: Call) -> random.Random:
        return self._dice or call.runtime.dice

    def _new(self, call: Call, conn: Connection) -> Held:
        state = Healing(policy=self.policy, random=self._dice_of(call).getrandbits(64))
        journal = self.journals.open(conn.id, conn.network_service)
        held = Held(conn.id, call.runtime, call.events, journal, state)
        self._open[conn.id] = held
        return held

    def _established(self, call: Call, held: Held, conn: Connection, by: By, reselect: bool) -> None:
        held.answered(conn)
        held.tidy = held.given.answered(conn, anew=reselect)
        # Addresses of a former endpoint are about to be taken off: nothing depends on them.
        target = Target.of(held.given.tidied(conn) if held.tidy else conn, self.namespace)
        chosen = None if self.probe is None else self.probe.choose(target)
        now, wall = call.runtime.clock.now(), call.runtime.clock.wall()
        lives = [None if (at := expiry(hop)) is None else at - wall for hop in conn.path.path_segments]
        event = model.Established(
            by=by,
            reselect=reselect,
            endpoint=conn.network_service_endpoint_name,
            expires=now + min((life for life in lives if life is not None), default=math.inf),
            timeout=held.timeout,
            refresh_in=refresh_after(conn.path.index, lives) or math.inf,
            probed=chosen is not None,
        )
        self._feed(held, event)
        if held.state.watches_data:
            held.watch(
                chosen,
                target,
                self.liveness,
                self._dice_of(call),
                lambda verdict, since: self._checked(held, verdict, since),
            )

    def _follow(self, call: Call, conn: Connection, held: Held, since: int) -> None:
        far = FAR.get(call)
        if far is None:
            return
        if held.following is not None and held.far_url == far.url:
            held.following.confirmed()
            return
        held.unfollow()
        held.far_url = far.url
        held.following = self._follower.follow(conn, far, lambda news: self._heard(held, news), since=since)

    def _take_over_from_refresh(self, call: Call, held: Held) -> None:
        """A refresh that fails is our business from now on."""
        refreshing = REFRESHING.get(call)
        if refreshing is None or refreshing.on_trouble is not None:
            return

        def trouble(_: object) -> None:
            # Failures that passed here are known already; this is for those that did not.
            if held.state.phase in _TROUBLED:
                self._feed(held, model.Failed(by=By.REFRESH, what=str(refreshing.error or "time ran out")))

        refreshing.on_trouble = trouble
        refreshing.helping = lambda: held.state.healing

    def _failure(self, held: Held, by: By, error: BaseException | None) -> model.Failed:
        text = str(error) or type(error).__name__
        return model.Failed(
            by=by,
            what=text,
            gone=is_gone(error, held.state.endpoint),
            fault=is_fault(error, external=by is By.EXTERNAL),
        )

    def _end(self, held: Held) -> None:
        known = held.state.known
        held.stop_timer()
        held.unfollow()
        if known:
            self._feed(held, model.Closed())
        self.journals.close(held.id)
        if self._open.get(held.id) is held:
            del self._open[held.id]

    # -- what is heard ----------------------------------------------------------------------------------------------

    def _heard(self, held: Held, news: HeardNews) -> None:
        event = held.heard(news)
        if event is not None:
            self._feed(held, event)

    def _checked(self, held: Held, verdict: Verdict, since: float | None) -> None:
        self._feed(held, model.Checked(alive=verdict.alive, what=verdict.why, since=since))

    # -- what is done -----------------------------------------------------------------------------------------------

    def _feed(self, held: Held, event: model.Event) -> None:
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

    def _arm(self, held: Held) -> None:
        held.stop_timer()
        due = held.state.due
        if due < math.inf:
            held.timer = held.runtime.timers.at(due, lambda: self._due(held))

    def _due(self, held: Held) -> None:
        held.timer = None
        self._feed(held, model.Due())

    def _act(self, held: Held, action: model.Action) -> None:
        match action:
            case model.Attempt():
                self._attempt(held, action.reselect)
            case model.Check():
                self._check(held)
            case model.Refresh():
                held.events.refresh()
            case model.Note():
                self._note(held, action)
            case _:
                assert_never(action)

    def _attempt(self, held: Held, reselect: bool) -> None:
        held.token += 1
        token = held.token

        def still() -> bool:
            return held.token == token and held.state.phase is Phase.TRYING

        def done(outcome: Outcome, error: BaseException | None) -> None:
            if still():
                failed = outcome is Outcome.FAILED
                self._feed(held, self._failure(held, By.OWN, error) if failed else model.Skipped())

        def edit(request: Request) -> None:
            self.reselect(request)
            held.given.strip(request, addresses=not self.offer_addresses)

        if reselect:
            held.events.reselect(edit, done, still)
        else:
            held.events.refresh(done, still)

    def _check(self, held: Held) -> None:
        def tell(verdict: Verdict) -> None:
            self._feed(held, model.Checked(alive=verdict.alive, what=verdict.why, asked=True))

        if held.regular is None:
            held.runtime.after(0.0, lambda: tell(Verdict(None, "nothing checks it")))
        else:
            held.regular.ask(tell)

    def _note(self, held: Held, note: Note) -> None:
        clock = held.runtime.clock
        entry = self.journals.note(held.journal, note, clock.now(), clock.wall())
        if note.kind in _TOLD:
            self.happenings.publish(_happening(held.id, _TOLD[note.kind], entry, held.conn))
        if note.kind is Kind.GAVE_UP and self.closes:
            held.events.close()


def _by(held: Held, call: Call) -> By:
    """Who sends what passes now."""
    if call.cause is Cause.CALL:
        return By.EXTERNAL
    own = held.state.phase is Phase.TRYING and held.state.anew == (call.cause is Cause.RESELECT)
    return By.OWN if own else By.REFRESH


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
