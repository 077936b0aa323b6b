# SPDX-License-Identifier: Apache-2.0
"""Which connections a monitor selector speaks of.

Does:  matches a selector against a connection, and finds the one key by which a selector can be looked up.
Place: the monitor hub, and the authorisation of monitor calls.
State: none.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsm_sdk.api._gen.connection import Connection, MonitorScopeSelector, PathSegment


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
