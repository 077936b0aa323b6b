# SPDX-License-Identifier: Apache-2.0
"""What was asked for, and what was given.

Does:  a three-way merge of what the caller was last given, what it asks for now, and what the connection is by now
       (healing and refreshing change it behind the caller's back), so that a stale object does not undo a heal. The
       same merge keeps, apart from the connection, what the caller has asked for: that alone goes to another endpoint.
Place: used by `Begin`, on hops whose caller is an application, and by healing.
State: none; pure functions.
"""

from __future__ import annotations

from typing import Any

from nsm_sdk.api import Connection, Request

_ADDRESSES = ("src_ip_addrs", "dst_ip_addrs")


def merge(returned: Connection, asked: Connection, current: Connection) -> Connection:
    """The connection to request: `current`, with what the caller changed since it was given `returned`.

    The caller may change the endpoint's name, the context (IP, Ethernet, DNS, MTU, extra context) and the labels.
    Id, path, mechanism, payload, service and state are those of the connection as it is. A caller that takes an address
    out gets those that it asks for, and no others.
    """
    merged = Connection()
    merged.CopyFrom(current)
    if asked.network_service_endpoint_name != returned.network_service_endpoint_name:
        merged.network_service_endpoint_name = asked.network_service_endpoint_name
    _merge(merged, returned, asked, ("labels", "context"))
    for name in _ADDRESSES:
        was, now = getattr(returned.context.ip_context, name), getattr(asked.context.ip_context, name)
        if set(was).difference(now):
            getattr(merged.context.ip_context, name)[:] = now
    return merged


def wishes(conn: Connection) -> Connection:
    """What a first request asks of any endpoint: payload, labels and context, and nothing else of the connection."""
    wanted = Connection(payload=conn.payload)
    _merge(wanted, Connection(), conn, ("labels", "context"))
    return wanted


def wish_again(wanted: Connection, returned: Connection, asked: Connection) -> Connection:
    """What the caller wishes now: `wanted`, with what it changed since it was given `returned`."""
    now = Connection()
    now.CopyFrom(wanted)
    # An empty payload asks for none in particular.
    if asked.payload and asked.payload != returned.payload:
        now.payload = asked.payload
    _merge(now, returned, asked, ("labels", "context"))
    return now


def only_wishes(request: Request, wanted: Connection) -> None:
    """Take out of a request what endpoints and hops have given: payload, labels and context become those `wanted`."""
    conn = request.connection
    conn.payload = wanted.payload
    conn.labels.clear()
    conn.labels.update(wanted.labels)
    conn.ClearField("context")
    if wanted.HasField("context"):
        conn.context.CopyFrom(wanted.context)


def _merge(into: Any, before: Any, now: Any, names: tuple[str, ...] = ()) -> None:
    """Apply to a message what was changed between two others of its kind; `names`: in these fields only."""
    for field in into.DESCRIPTOR.fields:
        name = field.name
        if names and name not in names:
            continue
        was, has = getattr(before, name), getattr(now, name)
        if was == has:
            continue
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            _merge_map(getattr(into, name), was, has)
        elif hasattr(was, "append"):
            _merge_list(getattr(into, name), was, has)
        elif kind is not None:
            _merge(getattr(into, name), was, has)
        else:
            setattr(into, name, has)


def _merge_list(into: Any, before: Any, now: Any) -> None:
    # By marks, because an endpoint may have given thousands.
    was, has = set(map(_mark, before)), set(map(_mark, now))
    kept = [item for item in into if (mark := _mark(item)) not in was or mark in has]
    there = set(map(_mark, kept))
    kept += [item for item in now if (mark := _mark(item)) not in was and mark not in there]
    kept = [_copied(item) for item in kept]
    del into[:]
    into.extend(kept)


def _mark(item: Any) -> object:
    """What two items have in common that are the same."""
    return item if isinstance(item, str) else item.SerializeToString(deterministic=True)


def _copied(item: Any) -> Any:
    if isinstance(item, str):
        return item
    # What is taken out of a list must not be put in again as it is.
    copy = type(item)()
    copy.CopyFrom(item)
    return copy


def _merge_map(into: Any, before: Any, now: Any) -> None:
    """Apply the caller's own additions, changes and removals to `into`."""
    for key in list(before):
        if key not in now:
            into.pop(key, None)
    for key in list(now):
        if key not in before or before[key] != now[key]:
            into[key] = now[key]
