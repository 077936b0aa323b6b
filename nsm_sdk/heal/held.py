# SPDX-License-Identifier: Apache-2.0
"""What `Heal` keeps of one connection.

Does:  holds the state of the decision, the watch over the datapath, who listens to the next hop, and the journal;
       translates what they say into events.
Place: in a slot of `Heal`.
State: one per connection, from its first request to its close.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio

from nsm_sdk.api import Connection, EventType, Snapshot, State
from nsm_sdk.core import Events, Runtime, Timer
from nsm_sdk.elements import Following, News
from nsm_sdk.elements import Heard as HeardNews
from nsm_sdk.errors import Cancelled, NoCandidate, NotFound, NsmError, Status
from nsm_sdk.heal.journal import Journal
from nsm_sdk.heal.model import Control, Data, Healing, Phase, Said
from nsm_sdk.heal.moving import Given
from nsm_sdk.heal.probes.probe import Liveness, Probe, Regular, Report, Target
from nsm_sdk.heal.steps import Heard

Ids: TypeAlias = tuple[str, ...]

_FAULTS = frozenset({Status.INVALID_ARGUMENT, Status.PERMISSION_DENIED, Status.UNAUTHENTICATED, Status.OUT_OF_RANGE})
"""Answers that say something of the request and nothing of the connection."""
_GONE_TEXTS = ("not found", "no candidate", "not registered", "candidates not found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where healing of one connection stands; times in seconds, monotonic."""

    phase: Phase
    control: Control
    data: Data
    attempts: int
    next_attempt: float
    alive_at: float | None
    probe: str


class Held:
    """One connection."""

    __slots__ = (
        "conn",
        "events",
        "far_url",
        "following",
        "given",
        "id",
        "journal",
        "paths",
        "refresh",
        "regular",
        "runtime",
        "state",
        "tidy",
        "timeout",
        "timer",
        "token",
    )

    def __init__(self, id: str, runtime: Runtime, events: Events, journal: Journal, state: Healing) -> None:
        self.id = id
        self.runtime = runtime
        self.events = events
        self.journal = journal
        self.state = state
        self.conn: Snapshot | None = None
        self.given = Given()
        self.tidy = False
        """The next request takes off what a former endpoint has left."""
        self.timeout = 15.0
        self.timer: Timer | None = None
        self.token = 0
        """Number of the latest attempt, over all healings."""
        self.refresh: anyio.CancelScope | None = None
        """Ends the plain request that is under way."""
        self.regular: Regular | None = None
        self.following: Following | None = None
        self.far_url = ""
        self.paths: tuple[Ids, Ids] = ((), ())
        """Segment ids as last answered, and as last heard: an event about others is of an earlier incarnation."""

    def watch(
        self,
        probe: Probe | None,
        target: Target,
        liveness: Liveness,
        dice: random.Random,
        report: Report,
    ) -> None:
        """Check the datapath regularly from now on."""
        regular = self.regular
        if regular is not None and probe is not None and _same(regular, probe, target):
            regular.renew(target)
            return
        self.unwatch()
        if probe is not None:
            self.regular = Regular(self.runtime, probe, target, liveness, dice, report)

    def unwatch(self) -> None:
        """Check no more."""
        if self.regular is not None:
            self.regular.stop()
            self.regular = None

    async def refreshing(self, answer: Coroutine[Any, Any, Connection]) -> Connection:
        """The answer to a plain request; Cancelled when it is ended meanwhile."""
        with anyio.CancelScope() as self.refresh:
            try:
                return await answer
            finally:
                self.refresh = None
        raise Cancelled("ended: meanwhile its datapath has turned out dead", hint="another endpoint is selected")

    def end_refresh(self) -> None:
        """Wait for no plain request any more: it asks an endpoint that is not wanted."""
        if self.refresh is not None:
            self.refresh.cancel()

    def unfollow(self) -> None:
        """Listen to the next hop no more."""
        if self.following is not None:
            self.following.stop()
            self.following = None
        self.far_url = ""

    def stop_timer(self) -> None:
        """Nothing is due."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def answered(self, conn: Connection) -> None:
        """The connection as it is from now on."""
        self.conn = Snapshot.of(conn)
        ids = _ids(conn)
        self.paths = (ids, ids)

    def heard(self, news: HeardNews) -> Heard | None:
        """What the next hop said; None for what is not about the connection as it is now."""
        match news.news:
            case News.LOST:
                return Heard(said=Said.LOST, what=_why("the manager's stream broke", news.error))
            case News.MISSING:
                return Heard(said=Said.MISSING)
            case News.REFUSED:
                return Heard(said=Said.REFUSED, what="" if news.error is None else news.error.message)
            case News.EVENT:
                return self._event(news)

    def _event(self, news: HeardNews) -> Heard | None:
        if news.conn is None:
            return None
        ids = _ids(news.conn)
        deleted = news.kind is EventType.DELETE
        if deleted or news.conn.state == State.DOWN:
            if not any(_fits(ids, known) for known in self.paths):
                return None
            return Heard(said=Said.DOWN, what="the next hop closed it" if deleted else "the next hop says DOWN")
        self.paths = (self.paths[0], ids)
        if news.conn.state == State.REFRESH_REQUESTED:
            return Heard(said=Said.REFRESH)
        if news.conn.state == State.RESELECT_REQUESTED:
            return Heard(said=Said.RESELECT)
        return Heard(said=Said.UP)

    def status(self) -> Standing:
        """For diagnostics."""
        regular = self.regular
        return Standing(
            phase=self.state.phase,
            control=self.state.control,
            data=self.state.data,
            attempts=self.state.attempts,
            next_attempt=self.state.due,
            alive_at=None if regular is None else regular.alive_at,
            probe="" if regular is None else type(regular.probe).__name__,
        )


def is_gone(error: BaseException | None, endpoint: str) -> bool:
    """Whether an error says that there is no such endpoint any more; upstream has only texts for it."""
    if isinstance(error, NoCandidate | NotFound):
        return True
    if not isinstance(error, NsmError) or not endpoint:
        return False
    text = error.message.lower()
    return endpoint.lower() in text and any(part in text for part in _GONE_TEXTS)


def is_fault(error: BaseException | None, *, external: bool) -> bool:
    """Whether an error says nothing of the connection: the request was bad, or its caller went away."""
    if isinstance(error, NsmError):
        return external and (error.status in _FAULTS or isinstance(error, Cancelled))
    # Cancelled in the middle: an application's own business; a refresh that runs out of time is not.
    return external and not isinstance(error, Exception)


def _ids(conn: Connection) -> Ids:
    return tuple(segment.id for segment in conn.path.path_segments)


def _fits(ids: Ids, known: Ids) -> bool:
    """Whether two paths agree as far as both go."""
    return all(one == other for one, other in zip(ids, known, strict=False))


def _why(text: str, error: NsmError | None) -> str:
    return text if error is None else f"{text}: {error.message}"


def _same(regular: Regular, probe: Probe, target: Target) -> bool:
    old = regular.target
    return (
        type(regular.probe) is type(probe)
        and (old.namespace, old.interface, old.pairs, old.sources, old.gateways)
        == (target.namespace, target.interface, target.pairs, target.sources, target.gateways)
        and (regular.probe is probe or hasattr(probe, "parts"))
    )
