# SPDX-License-Identifier: Apache-2.0
"""Keep a connection alive: look at the datapath before moving, and move at once when it is dead.

Does:  tells `decide` what the next hop says, what checks of the datapath say, and how requests end; what it answers is
       done by `Shell`. A refresh that is under way when the datapath turns out dead is ended. Also refreshes when the
       path asks for it (state REFRESH_REQUESTED), even before the first Request has returned.
Place: below `Refresh`, above the mechanisms and `Connect`, in clients. Needs no probe; says nothing on the wire but
       Requests, Closes and one monitor stream per peer.
State: `Held`, in a slot that outlives a reselect; journals and streams of happenings, by connection id.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from nsm_sdk.api import Connection, Request, State, expiry
from nsm_sdk.core import Call, Cause, Element, Next, Service, Slot
from nsm_sdk.elements import NEXT_HOP, REFRESHING, Begin, Follower, Refresh, refresh_after
from nsm_sdk.elements import Heard as HeardNews
from nsm_sdk.errors import pushback
from nsm_sdk.heal import steps
from nsm_sdk.heal.happenings import Happenings
from nsm_sdk.heal.held import Held, Standing
from nsm_sdk.heal.journal import Journals
from nsm_sdk.heal.model import MANAGER_GONE, By, Healing, Phase, Policy
from nsm_sdk.heal.moving import Edit, select_anew
from nsm_sdk.heal.probes.probe import Liveness, Probe, Target, Verdict
from nsm_sdk.heal.shell import Shell

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
        self.offer_addresses = offer_addresses
        self.namespace = namespace
        self.journals = Journals() if journals is None else journals
        self.happenings = Happenings() if happenings is None else happenings
        self._shell = Shell(
            self.journals, self.happenings, reselect=reselect, offer_addresses=offer_addresses, closes=closes
        )
        self._follower = follower or Follower()
        self._dice = None if seed is None else random.Random(seed)
        self._held: Slot[Held] = Slot("heal")
        self._open: dict[str, Held] = {}
        self._wishes: dict[str, Connection] = {}

    def services(self) -> Iterable[Service]:
        return (self._follower,) if self.probe is None else (self._follower, self.probe)

    def takes_up(self, id: str, wishes: Connection | None) -> None:
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
            before = None if held.conn is None else held.conn.connection()
            held.given.asked(request, before, self._wishes.pop(held.id, None))
            held.timeout = call.remaining() if 0 < call.remaining() < math.inf else held.timeout
        if held.tidy:
            held.given.tidy(request)
        self._take_over_from_refresh(call, held)
        if reselect:
            self._shell.feed(held, steps.Sent(reselect=True))
        elif by is By.OWN and held.state.why in MANAGER_GONE:
            # Those who wait for a manager all come in the moment when it is back, however well they were spread.
            call.patient = False
        watch = held.regular
        if watch is not None:
            watch.hold()
        since, token = self._follower.mark(), held.token
        try:
            conn = await self._passed_on(call, request, next, held, by)
            self._established(call, held, conn, _in_the_end(by, held, token), reselect)
            self._follow(call, conn, held, since)
            if held.tidy:
                held.events.refresh()
        finally:
            if watch is not None:
                watch.go_on()
        return conn

    async def _passed_on(self, call: Call, request: Request, next: Next, held: Held, by: By) -> Connection:
        token = held.token
        try:
            if call.cause is Cause.REFRESH:
                return await held.refreshing(next.request(call, request))
            return await next.request(call, request)
        except BaseException as error:
            # An attempt of our own reports by way of Begin, which also knows of those that never got here.
            if (by := _in_the_end(by, held, token)) is not By.OWN:
                self._shell.failed(held, by, error)
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
        event = steps.Established(
            by=by,
            reselect=reselect,
            endpoint=conn.network_service_endpoint_name,
            expires=now + min((life for life in lives if life is not None), default=math.inf),
            timeout=held.timeout,
            refresh_in=refresh_after(conn.path.index, lives) or math.inf,
            probed=chosen is not None,
        )
        self._shell.feed(held, event)
        if held.state.watches_data:
            held.watch(
                chosen,
                target,
                self.liveness,
                self._dice_of(call),
                lambda verdict, since: self._checked(held, verdict, since),
            )

    def _follow(self, call: Call, conn: Connection, held: Held, since: int) -> None:
        far = NEXT_HOP.get(call)
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
                error = refreshing.error
                what = str(error or "time ran out")
                self._shell.feed(held, steps.Failed(by=By.REFRESH, what=what, pushback=pushback(error)))

        refreshing.on_trouble = trouble
        refreshing.helping = lambda: held.state.healing

    def _end(self, held: Held) -> None:
        known = held.state.known
        held.stop_timer()
        held.unfollow()
        if known:
            self._shell.feed(held, steps.Closed())
        self.journals.close(held.id)
        if self._open.get(held.id) is held:
            del self._open[held.id]

    # -- what is heard ----------------------------------------------------------------------------------------------

    def _heard(self, held: Held, news: HeardNews) -> None:
        event = held.heard(news)
        if event is not None:
            self._shell.feed(held, event)

    def _checked(self, held: Held, verdict: Verdict, since: float | None) -> None:
        self._shell.feed(held, steps.Checked(alive=verdict.alive, what=verdict.why, since=since))


def _by(held: Held, call: Call) -> By:
    """Who sends what passes now."""
    if call.cause is Cause.CALL:
        return By.EXTERNAL
    own = held.state.phase is Phase.TRYING and held.state.anew == (call.cause is Cause.RESELECT)
    return By.OWN if own else By.REFRESH


def _in_the_end(by: By, held: Held, token: int) -> By:
    """An attempt that another one has replaced meanwhile is but a refresh."""
    return By.REFRESH if by is By.OWN and held.token != token else by
