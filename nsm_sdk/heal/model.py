# SPDX-License-Identifier: Apache-2.0
"""What healing knows of a connection, and how it behaves.

Does:  plain data for `decide`: the state of one connection (`Healing`), its words, and the settings (`Policy`).
Place: between `decide` (which computes with it) and `Heal` (which keeps it).
State: none; everything is frozen. Times are seconds by `runtime.clock.now()`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any


class Control(StrEnum):
    """What the control plane says of the connection."""

    UP = "up"
    DOWN = "down"
    """A manager that is alive says so, or does not know the connection."""
    UNKNOWN = "unknown"
    """Nobody tells: the manager's stream broke, or its policy refuses one."""


class Data(StrEnum):
    """What the last check of the datapath said."""

    UP = "up"
    DOWN = "down"
    UNCHECKED = "unchecked"


class Phase(StrEnum):
    """What healing is doing."""

    WATCHING = "watching"
    DOUBTING = "doubting"
    """Heard a DOWN that may be the echo of a close of our own; believed unless the contrary is heard soon."""
    WAITING = "waiting"
    """The next attempt is due at `Healing.due`."""
    CHECKING = "checking"
    """The datapath is being checked before an attempt."""
    TRYING = "trying"
    GIVEN_UP = "given up"
    CLOSED = "closed"


HEALING_PHASES = frozenset({Phase.WAITING, Phase.CHECKING, Phase.TRYING})


class Why(StrEnum):
    """Why healing began."""

    DATA = "data"
    """The datapath is down."""
    DOWN = "down"
    """A living manager says DOWN."""
    LOST = "lost"
    """The manager's stream broke."""
    MISSING = "missing"
    """The manager came back without the connection."""
    REFRESH = "refresh"
    """A request of ours failed."""
    ORDER = "order"
    """Somebody on the path asks us to select anew."""


MANAGER_GONE = frozenset({Why.LOST, Why.MISSING})
"""All clients of the manager see these at the same time."""


class By(StrEnum):
    """Who sent a request."""

    OWN = "healing"
    REFRESH = "refresh"
    EXTERNAL = "application"


class Said(StrEnum):
    """What was heard of the connection from the next hop."""

    UP = "up"
    DOWN = "down"
    REFRESH = "refresh requested"
    RESELECT = "reselect requested"
    LOST = "stream lost"
    MISSING = "missing"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How healing behaves; times in seconds."""

    first_pause: float = 0.05
    """Before the second attempt; doubles from there, shortened at random by up to a half. The first has no pause."""
    longest_pause: float = 5.0
    spread: float = 2.0
    """A connection whose data flows while its manager is gone is requested again within this many refresh times, ..."""
    longest_spread: float = 10.0
    """... but within so many seconds: until then the manager has no news for it."""
    spread_unchecked: float = 2.0
    """The same for a connection that nothing checks, in seconds: it may well be dead."""
    plain_tries: int = 3
    """Failed requests, refresh included, before an unchecked connection is selected anew."""
    echo: float = 30.0
    """How long after a reselect of our own the state RESELECT_REQUESTED in an event is no order."""
    gone_grace: float = 30.0
    """How long an endpoint whose registration is gone is waited for while its data flows: registries restart, too."""
    doubt: float = 0.5
    """How long a DOWN that may be the echo of our own close is not believed."""
    attempts: int = 0
    """Give up after so many attempts; 0: never."""
    patience: float = math.inf
    """Give up after healing for so long."""


@dataclass(frozen=True, kw_only=True)
class Healing:
    """One connection, as far as healing is concerned."""

    policy: Policy = field(default_factory=Policy)
    random: int = 0
    """The state of the pseudo-random numbers: the same seed gives the same decisions."""
    phase: Phase = Phase.WATCHING
    control: Control = Control.UNKNOWN
    data: Data = Data.UNCHECKED
    why: Why | None = None
    due: float = math.inf
    """When `Due` is to be fed."""

    probed: bool = False
    """Whether a check of the datapath can be run."""
    endpoint: str = ""
    expires: float = math.inf
    """When the first token of the path runs out."""
    lifetime: float = math.inf
    """What was left of that when the connection was last established."""
    timeout: float = 15.0
    """How long a request may take."""
    refresh_in: float = math.inf
    """A refresh is due so long after each success."""
    known: bool = False
    """Established at least once."""

    began: float = 0.0
    attempts: int = 0
    """Attempts of this healing."""
    plain: int = 0
    """Requests to the same endpoint that have failed since the last success."""
    reselects: bool = False
    """Every further attempt of this healing selects anew."""
    anew: bool = False
    """The attempt under way selects anew."""
    gone_since: float = math.inf
    """Since when requests fail because the endpoint's registration is gone."""
    spread: bool = False
    """The next attempt still has to be put off, because all clients of the manager want theirs."""
    alive_at: float = -math.inf
    """When the datapath was last known to be up."""
    not_before: float = -math.inf
    """Until then the peer has asked to be left alone."""

    stale: bool = False
    """A close of ours is under way or was: a DOWN may be its echo until something else is heard."""
    reselected: bool = False
    """The last request that succeeded said RESELECT_REQUESTED."""
    reselected_at: float = -math.inf
    """When the last one that said so succeeded."""
    echoes: bool = False
    """That state may still come back in events."""

    fruitless: int = 0
    """How often in a row the datapath has not been up for a moment after selecting anew had succeeded."""

    wanted: bool = False
    """A refresh was asked for and has not been posted yet."""
    posted: bool = False
    """A refresh that was asked for is under way."""
    wishes: int = 0
    wished_at: float = -math.inf

    @property
    def healing(self) -> bool:
        """Whether the connection is being repaired."""
        return self.phase in HEALING_PHASES

    @property
    def watches_data(self) -> bool:
        """Whether there is a datapath that is worth checking."""
        return self.known and not self.reselects and self.phase not in (Phase.CLOSED, Phase.GIVEN_UP)

    @property
    def last_call(self) -> float:
        """The last moment at which selecting anew is done in time: one request before the first token runs out."""
        if self.expires == math.inf:
            return math.inf
        spare = self.timeout if self.timeout <= self.lifetime / 4 else self.lifetime / 10
        return self.expires - spare


if TYPE_CHECKING:
    from dataclasses import replace as replace
else:

    def replace(state: Healing, /, **changes: Any) -> Healing:
        """Like that of dataclasses, but calls no constructor, which would take half of a decision."""
        new = object.__new__(Healing)
        vars(new).update(vars(state), **changes)
        return new
