# SPDX-License-Identifier: Apache-2.0
"""What can happen to a connection, and what healing can do about it.

Does:  plain data that goes into `decide` (events) and comes out of it (actions, among them notes for the journal).
Place: between `decide` and what feeds it.
State: none; everything is frozen. Times are seconds by `runtime.clock.now()`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from nsm_sdk.heal.model import By, Said, Why

# -- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """A request succeeded."""

    by: By
    reselect: bool = False
    """It said RESELECT_REQUESTED."""
    endpoint: str = ""
    expires: float = math.inf
    timeout: float = 15.0
    refresh_in: float = math.inf
    probed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request failed."""

    by: By
    what: str = ""
    gone: bool = False
    """The endpoint's registration is gone."""
    fault: bool = False
    """The fault is the caller's, or the caller went away: it says nothing of the connection."""
    reached: bool = True
    """The next hop has seen it, or may have; else it says nothing but that this hop is away."""
    pushback: float = 0.0
    """Seconds for which the peer asked to be left alone; 0: it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Our own attempt was not made: another event had made it needless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request is going out."""

    reselect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The next hop said something."""

    said: Said
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The datapath was checked. `alive` None: the check could not be made."""

    alive: bool | None
    what: str = ""
    since: float | None = None
    """Of a regular watch: when it last was alive."""
    asked: bool = False
    """It answers `Check`; else it comes from the regular watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """`Healing.due` has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The connection is being closed."""


Event: TypeAlias = Established | Failed | Skipped | Sent | Heard | Checked | Due | Closed


# -- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Request again; with `reselect` close first and select anew."""

    reselect: bool
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Check the datapath now, and answer with `Checked(asked=True)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """Request again because the path asks for it."""


class Kind(StrEnum):
    """What a note is about."""

    UP = "up"
    DOWN = "down"
    HEARD = "heard"
    DOUBT = "doubt"
    CHECKED = "checked"
    HEALING = "healing"
    WAIT = "wait"
    ATTEMPT = "attempt"
    FAILED = "failed"
    HEALED = "healed"
    REFRESHED = "refreshed"
    GAVE_UP = "gave up"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something for the journal. Numbers are None where they say nothing."""

    kind: Kind
    text: str
    why: Why | None = None
    moved: bool | None = None
    detect: float | None = None
    """Seconds from the last time the datapath was known to be up, or None where that is not what was seen."""
    repair: float | None = None
    """Seconds from the first sign of trouble to the success."""
    attempts: int | None = None


Action: TypeAlias = Attempt | Check | Refresh | Note
