# SPDX-License-Identifier: Apache-2.0
"""The one exception tree of the SDK.

Does:  names every way in which the SDK fails. Each error says what went wrong (`message`), where (`hop`,
       `element`), what to do about it (`hint`), and which gRPC status a peer reads (`status`).

           NsmError
           |- InvalidRequest      INVALID_ARGUMENT     the caller sent something malformed
           |  `- TemplateError    INVALID_ARGUMENT     a template that cannot be rendered; tells line and column
           |- NotFound            NOT_FOUND            nothing of that name
           |- AlreadyExists       ALREADY_EXISTS       the name is taken
           |- PermissionDenied    PERMISSION_DENIED    a policy said no
           |- Unauthenticated     UNAUTHENTICATED      the caller did not say who it is
           |- Exhausted           RESOURCE_EXHAUSTED   a pool or a limit is used up
           |- FailedPrecondition  FAILED_PRECONDITION  the world is not as the request needs it
           |- Unavailable         UNAVAILABLE          nobody answers; trying again may help
           |  |- NoCandidate      UNAVAILABLE          no endpoint fits; tells why each one fell
           |  |- ConnectionRetired UNAVAILABLE         the peer ended the connection in good order, below the call
           |  `- NotReached       UNAVAILABLE          nobody is there; certainly nobody has looked at the call
           |- DeadlineExceeded    DEADLINE_EXCEEDED    time ran out
           |- Cancelled           CANCELLED            the caller went away
           |- Unimplemented       UNIMPLEMENTED        the peer does not offer this
           |- Internal            INTERNAL             a defect of ours or of the peer
           |- DataLoss            DATA_LOSS            what arrived cannot be decoded
           |- Aborted             ABORTED              overtaken by another event
           |- OutOfRange          OUT_OF_RANGE         past the end
           `- ProgrammingError    INTERNAL             wrong use of this library
              |- ChainOrderError                       an element stands in the wrong place
              `- ServingTwice                          a chain that holds a service is served already

Place: raised anywhere; translated to and from gRPC at the transport's edge only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Status(IntEnum):
    """gRPC status codes, by the numbers of the gRPC specification."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class NsmError(Exception):
    """Base of all errors of the SDK.

    `hop` and `element` are filled in at the edge of the hop where the error arose (they may be given earlier);
    `trail` lists the hops the error passed on its way, nearest first; `hint` tells the reader what to do.
    `retry_after`: seconds that the caller shall wait at least before it tries again; None where nobody asked for that.
    """

    default_status: ClassVar[Status] = Status.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        hop: str = "",
        element: str = "",
        status: Status | None = None,
        trail: tuple[str, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.hop = hop
        self.element = element
        self.status = self.default_status if status is None else status
        self.trail = trail
        self.retry_after = retry_after

    def __str__(self) -> str:
        place = " / ".join(part for part in (self.hop, self.element) if part)
        text = f"{self.message} (in {place})" if place else self.message
        return f"{text}; {self.hint}" if self.hint else text


class InvalidRequest(NsmError):
    """The caller sent something malformed; sending it again cannot help."""

    default_status = Status.INVALID_ARGUMENT


class TemplateError(InvalidRequest):
    """A template that cannot be rendered. `line` and `column` count from 1 in the template's own text; 0: unknown."""

    def __init__(
        self,
        message: str,
        *,
        line: int = 0,
        column: int = 0,
        hint: str = "",
        hop: str = "",
        element: str = "",
        trail: tuple[str, ...] = (),
    ) -> None:
        text = f"line {line}, column {column}: {message}" if line else message
        super().__init__(text, hint=hint, hop=hop, element=element, trail=trail)
        self.line = line
        self.column = column


class NotFound(NsmError):
    """There is nothing of that name."""

    default_status = Status.NOT_FOUND


class AlreadyExists(NsmError):
    """The name is taken by something that is not ours."""

    default_status = Status.ALREADY_EXISTS


class PermissionDenied(NsmError):
    """A policy said no."""

    default_status = Status.PERMISSION_DENIED


class Unauthenticated(NsmError):
    """The caller did not say who it is."""

    default_status = Status.UNAUTHENTICATED


class Exhausted(NsmError):
    """A pool or a limit is used up."""

    default_status = Status.RESOURCE_EXHAUSTED


class FailedPrecondition(NsmError):
    """The world is not as the request needs it to be (a namespace is gone, a device is missing)."""

    default_status = Status.FAILED_PRECONDITION


class Unavailable(NsmError):
    """Nobody answers at the moment; trying again may help."""

    default_status = Status.UNAVAILABLE


class NoCandidate(Unavailable):
    """No endpoint fits the request. The message tells what was looked for and why each candidate fell."""


class NotReached(Unavailable):
    """Nobody has taken the call: no connection to the peer ever stood for it, or the peer's transport says that it was
    not handed on (a GOAWAY or REFUSED_STREAM of HTTP/2).

    Only a transport raises it, and only when it is certain; a call that may have been handled in part is `Unavailable`.
    What a peer answers never becomes `NotReached`: that the peer could not reach somebody is plain `Unavailable` here.
    """


class ConnectionRetired(Unavailable):
    """The peer ended the connection in good order (GOAWAY without an error) while the call was under way on it.

    Peers and proxies end connections by age, so it says nothing of what the call was about: a stream may be opened
    again at once, and only if that fails is the peer gone. Only a transport raises it.
    """


class DeadlineExceeded(NsmError):
    """Time ran out."""

    default_status = Status.DEADLINE_EXCEEDED


class Cancelled(NsmError):
    """The caller went away, or the hop is shutting down."""

    default_status = Status.CANCELLED


class Unimplemented(NsmError):
    """The peer does not offer this method or family."""

    default_status = Status.UNIMPLEMENTED


class Internal(NsmError):
    """A defect of ours or of the peer."""

    default_status = Status.INTERNAL


class DataLoss(NsmError):
    """What arrived cannot be decoded."""

    default_status = Status.DATA_LOSS


class Aborted(NsmError):
    """Overtaken by another event of the same connection."""

    default_status = Status.ABORTED


class OutOfRange(NsmError):
    """Past the end of what there is."""

    default_status = Status.OUT_OF_RANGE


class ProgrammingError(NsmError):
    """Wrong use of this library; raised where the mistake is, never sent on purpose."""

    default_status = Status.INTERNAL


class ChainOrderError(ProgrammingError):
    """An element stands where it cannot work; the message names both elements."""


class ServingTwice(ProgrammingError):
    """A chain that holds a service is being served already."""


_BY_STATUS: dict[Status, type[NsmError]] = {
    kind.default_status: kind
    for kind in (
        InvalidRequest,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        Exhausted,
        FailedPrecondition,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unimplemented,
        Internal,
        DataLoss,
        Aborted,
        OutOfRange,
    )
}


def pushback(error: BaseException | None) -> float:
    """Seconds that must pass before what failed is tried again, because a peer asked for it; 0 where none did."""
    return (error.retry_after or 0.0) if isinstance(error, NsmError) else 0.0


def from_status(
    status: Status | int,
    message: str,
    *,
    trail: tuple[str, ...] = (),
    retry_after: float | None = None,
    **place: str,
) -> NsmError:
    """The error that stands for a peer's gRPC status; `place` may give `hop`, `element` and `hint`.

    A status that nobody defined becomes UNKNOWN.
    """
    try:
        known = Status(status)
    except ValueError:
        known = Status.UNKNOWN
    kind = _BY_STATUS.get(known, NsmError)
    return kind(message, status=known, trail=trail, retry_after=retry_after, **place)
