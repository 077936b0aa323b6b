# SPDX-License-Identifier: Apache-2.0
"""The path of a connection: one segment for each hop, and an index that says whose turn it is.

Finds the current segment and its neighbours, refuses paths that cannot be right, matches paths against monitor
selectors, converts times, and describes a connection in one line. Tokens are never part of a text made here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from nsm_sdk.api._gen.connection import Connection, MonitorScopeSelector, PathSegment, State
from nsm_sdk.api._gen.wellknown import Timestamp
from nsm_sdk.errors import InvalidRequest

# google.protobuf.Timestamp ends with the years 1 and 9999
_EARLIEST = -62_135_596_800
_LATEST = 253_402_300_799
_NANOS = 1_000_000_000
# What a line of text shows of a peer's path
_SHOWN = 16
_LONGEST = 80


def check_path(conn: Connection) -> None:
    """Raises InvalidRequest unless the path has segments, the index is one of them, and its id is the connection's."""
    path = conn.path
    if not path.path_segments:
        raise InvalidRequest(
            f"connection {describe(conn)} has no path", hint="send a path whose first segment has your name and id"
        )
    if path.index >= len(path.path_segments):
        raise InvalidRequest(
            f"connection {describe(conn)}: path index {path.index} is out of range",
            hint=f"the path has {len(path.path_segments)} segments; the index must be below that",
        )
    current = path.path_segments[path.index]
    if current.id != conn.id:
        raise InvalidRequest(
            f"connection {describe(conn)}: the id is not that of its path segment, {_short(current.id)}",
            hint="the connection's id must be the id of the segment that the index points to",
        )


def segment(conn: Connection) -> PathSegment:
    """The current segment, a live part of `conn`. InvalidRequest when the index points nowhere."""
    path = conn.path
    if path.index < len(path.path_segments):
        return path.path_segments[path.index]
    raise InvalidRequest(
        f"connection {describe(conn)} has no path segment {path.index}",
        hint=f"the path has {len(path.path_segments)} segments; the index must be below that",
    )


def previous(conn: Connection) -> PathSegment | None:
    """The segment of the hop before the current one; None at the first. InvalidRequest as in `segment`."""
    segment(conn)
    index = conn.path.index
    return conn.path.path_segments[index - 1] if index > 0 else None


def following(conn: Connection) -> PathSegment | None:
    """The segment of the hop after the current one; None at the last. InvalidRequest as in `segment`."""
    segment(conn)
    path = conn.path
    return path.path_segments[path.index + 1] if path.index + 1 < len(path.path_segments) else None


def first(conn: Connection) -> PathSegment:
    """The segment of the hop where the connection began. InvalidRequest when there is none."""
    if conn.path.path_segments:
        return conn.path.path_segments[0]
    raise InvalidRequest(
        f"connection {describe(conn)} has no path", hint="send a path whose first segment has your name and id"
    )


def names(conn: Connection) -> list[str]:
    """Names of all hops, in the order the request travels."""
    return [hop.name for hop in conn.path.path_segments]


def describe(conn: Connection) -> str:
    """One short line for a human: id, service, endpoint, hops, state. Never a token; safe to print."""
    words = [_short(conn.id) if conn.id else "without id"]
    if conn.network_service:
        words.append(f"to {_short(conn.network_service)}")
    if conn.network_service_endpoint_name:
        words.append(f"at {_short(conn.network_service_endpoint_name)}")
    if conn.path.path_segments:
        index = conn.path.index
        hops = [_short(hop.name) for hop in conn.path.path_segments[:_SHOWN]]
        if index < len(hops):
            hops[index] = f"[{hops[index]}]"
        more = len(conn.path.path_segments) - len(hops)
        words.append(f"via {' > '.join(hops)}" + (f" and {more} more" if more else ""))
    if conn.state:
        words.append(state_name(conn.state))
    return " ".join(words)


def without_tokens(conn: Connection) -> Connection:
    """A copy for printing and logging: each token is replaced by "...", everything else is as it was."""
    copy = Connection()
    copy.CopyFrom(conn)
    for hop in copy.path.path_segments:
        if hop.token:
            hop.token = "..."
    return copy


def _short(text: str) -> str:
    """A peer's text for a log line: no control characters, no more than a line can take."""
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return cut if cut and cut.isprintable() else repr(cut)


def state_name(state: int) -> str:
    """Name of a connection state; a number that nobody defined yet is written as it is."""
    try:
        return State(state).name
    except ValueError:
        return f"STATE_{state}"


def timestamp(at: float) -> Timestamp:
    """The message for a time in seconds since the epoch (microseconds are kept).

    Times outside the years 1 to 9999 become the nearest the message can hold; InvalidRequest for not-a-number.
    """
    whole, nanos = _parts(at)
    return Timestamp(seconds=whole, nanos=nanos)


def _parts(at: float) -> tuple[int, int]:
    if math.isnan(at):
        raise InvalidRequest("a time must be a number, not NaN")
    if at <= _EARLIEST:
        return _EARLIEST, 0
    if at >= _LATEST + 1:
        return _LATEST, _NANOS - 1
    whole = math.floor(at)
    micros = round((at - whole) * 1_000_000)
    if micros == 1_000_000 and whole < _LATEST:
        return whole + 1, 0
    return whole, min(micros * 1000, _NANOS - 1)


def seconds(ts: Timestamp) -> float:
    """Seconds since the epoch. Total: whatever a peer put into the fields gives a number."""
    return ts.seconds + ts.nanos / _NANOS


def expiry(hop: PathSegment) -> float | None:
    """When the token of a segment expires, in seconds since the epoch; None when the segment does not say."""
    return seconds(hop.expires) if hop.HasField("expires") else None


def set_expiry(hop: PathSegment, at: float) -> None:
    """Sets when the token of a segment expires, in seconds since the epoch."""
    expires = hop.expires
    expires.seconds, expires.nanos = _known_parts(at)


# A token is handed out, and its expiry written, many times.
_known_parts = functools.lru_cache(maxsize=256)(_parts)


def matches(selector: MonitorScopeSelector, conn: Connection) -> bool:
    """True if the selector means the connection.

    The segments of the selector must match neighbouring segments of the path, one by one, by name, id and token; an
    empty text matches any. The service must be one of those named, if any is named. An empty selector means all.
    """
    if selector.network_services and conn.network_service not in selector.network_services:
        return False
    wanted = selector.path_segments
    if not wanted:
        return True
    path = conn.path.path_segments
    return any(_run_matches(wanted, path, start) for start in range(len(path) - len(wanted) + 1))


def keys(selector: MonitorScopeSelector) -> tuple[str, str] | None:
    """A (name, id) pair that every matching connection has in its path; None if the selector names no full pair.

    A hub that indexes connections by the pairs of their paths looks this one up and asks `matches` of what it finds;
    nothing else can match.
    """
    return next(((hop.name, hop.id) for hop in selector.path_segments if hop.name and hop.id), None)


def _run_matches(wanted: Sequence[PathSegment], path: Sequence[PathSegment], start: int) -> bool:
    return all(_segment_matches(hop, path[start + at]) for at, hop in enumerate(wanted))


def _segment_matches(wanted: PathSegment, hop: PathSegment) -> bool:
    return (
        (not wanted.name or wanted.name == hop.name)
        and (not wanted.id or wanted.id == hop.id)
        and (not wanted.token or wanted.token == hop.token)
    )
