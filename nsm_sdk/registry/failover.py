# SPDX-License-Identifier: Apache-2.0
"""Failover among candidates: one after the other, and which failed lately.

Does:  sends a request to one candidate after the other until one succeeds, to all but the last as a copy. Each gets a
       share of the time that is left, so that one which hangs leaves the next a chance. What a failed try has built is
       closed below before the next. Remembers for a while which ones failed, so that they are tried last.
Place: the elements that choose.
State: `RecentFailures`: when each name failed last.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Next, cleanup_time, narrowed
from nsm_sdk.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotReached,
    NsmError,
    PermissionDenied,
    ProgrammingError,
    Status,
    Unauthenticated,
    from_status,
    pushback,
)

logger = logging.getLogger("nsm_sdk.registry")

SHARES = 3
"""A candidate gets one of so many parts of the time that is left, or of as many as there are candidates, if fewer; the
last one gets all."""
MAX_SHARED = 15.0
"""Seconds to share out at most, so that a caller without a deadline comes to the next one, too."""
UNDO_TIME = 2.0
"""Seconds for closing below after a try that failed, at most."""
UNDO_SHARE = 0.25
"""Part of the time that is left which this may take."""
UNDO_SLOW_SHARE = 0.05
"""The same where the candidate did not answer in its time: it is told once more, later and in the background."""
REMEMBERED = 60.0
"""Seconds for which a failure counts."""
_MAX_NAMES = 4096


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate that may take the connection."""

    name: str
    url: str


Ask: TypeAlias = Callable[[Call], Awaitable[Sequence[Option]]]
"""The candidates of this moment, as the registry itself says; empty where it cannot be asked."""


class RecentFailures:
    """Which candidates failed lately."""

    def __init__(self) -> None:
        self._when: dict[str, float] = {}

    def add(self, name: str, now: float) -> None:
        """`name` failed at `now`."""
        if len(self._when) >= _MAX_NAMES:
            self._when.clear()
        self._when[name] = now

    def forgive(self, name: str) -> None:
        """`name` works."""
        self._when.pop(name, None)

    def order(self, options: Iterable[Option], now: float, avoid: Iterable[str] = ()) -> list[Option]:
        """Options without duplicate names, in stable order: healthy ones first, then those that failed lately, then
        those in `avoid`."""
        options = list(options)
        if len(options) < 2:
            return options
        shunned = set(avoid)
        unique = {option.name: option for option in reversed(options)}
        ordered = list(unique.values())[::-1]
        return sorted(ordered, key=lambda one: (one.name in shunned, self._failed(one.name, now)))

    def _failed(self, name: str, now: float) -> bool:
        when = self._when.get(name)
        if when is None:
            return False
        if now - when >= REMEMBERED:
            del self._when[name]
            return False
        return True


async def try_each(
    call: Call,
    request: Request,
    next: Next,
    options: Sequence[Option],
    failures: RecentFailures,
    what: str,
    edit: Callable[[Connection, Option], None] = lambda conn, option: None,
    ask: Ask | None = None,
    final: tuple[type[NsmError], ...] = (),
) -> tuple[Option, Connection]:
    """The option that took the connection, and the answer. `edit` changes the copy that one option gets; `final` are
    errors that another option cannot change.

    When one cannot be reached `ask` gives the options as they are by now: it may have moved, or others have come.

    The error of the only option as it is; else one that lists all, with the status of the last. A request that one
    calls invalid is offered to no other.
    """
    errors: list[tuple[Option, Exception]] = []
    clock = call.runtime.clock
    options = list(options)
    number = 0
    while number < len(options):
        option = options[number]
        number += 1
        attempt = request
        if number < len(options) or ask is not None:
            attempt = Request()
            attempt.CopyFrom(request)
        edit(attempt.connection, option)
        if errors:
            await _close_below(call, next, *errors[-1], attempt.connection)
        call.url = option.url
        try:
            with narrowed(call, share(call.remaining(), len(options) - number + 1)):
                answer = await next.request(call, attempt)
        except (InvalidRequest, ProgrammingError):
            raise  # no other could do better
        except final:
            raise
        except (NsmError, TimeoutError) as error:
            if not isinstance(error, (PermissionDenied, Unauthenticated)):
                failures.add(option.name, clock.now())
            errors.append((option, error))
            logger.info("%s: %s %r at %s failed: %s", call.runtime.name, what, option.name, option.url, error)
            if call.remaining() <= 0:
                break
            if ask is not None and isinstance(error, NotReached):
                there, ask = await ask(call), None
                options += [one for one in there if one not in options]
        except BaseException:
            # Cancelled while it was not answering: another may be quicker next time.
            failures.add(option.name, clock.now())
            raise
        else:
            failures.forgive(option.name)
            return option, answer
    raise _combined(what, errors)


def share(remaining: float, candidates: int) -> float:
    """Seconds that the first of so many candidates gets of the time that remains."""
    return math.inf if candidates < 2 else min(remaining, MAX_SHARED) / min(candidates, SHARES)


async def _close_below(call: Call, next: Next, failed: Option, why: Exception, conn: Connection) -> None:
    """Undo what a failed try may have left; the next one starts from nothing."""
    closing = Connection()
    closing.CopyFrom(conn)
    call.url = failed.url
    slow = isinstance(why, (TimeoutError, DeadlineExceeded))
    seconds = min(UNDO_TIME, min(call.remaining(), MAX_SHARED) * (UNDO_SLOW_SHARE if slow else UNDO_SHARE))
    outer, call.deadline = call.deadline, min(call.deadline, call.runtime.clock.now() + seconds)
    try:
        with cleanup_time(seconds):
            await next.close(call, closing)
    except Exception as error:
        logger.info("%s: closing what %r left: %s", call.runtime.name, failed.name, error)
    finally:
        call.deadline = outer


def _combined(what: str, errors: Sequence[tuple[Option, Exception]]) -> Exception:
    last = errors[-1][1]
    if len(errors) == 1:
        return last
    texts = "; ".join(f"{option.name}: {_message(error)}" for option, error in errors)
    status, hint = (last.status, last.hint) if isinstance(last, NsmError) else (Status.DEADLINE_EXCEEDED, "")
    trail = last.trail if isinstance(last, NsmError) else ()
    wait = max(pushback(error) for _, error in errors) or None
    combined = from_status(status, f"every {what} failed: {texts}", trail=trail, hint=hint, retry_after=wait)
    combined.__cause__ = last
    return combined


def _message(error: Exception) -> str:
    return error.message if isinstance(error, NsmError) else "it did not answer in its share of the time"
