# SPDX-License-Identifier: Apache-2.0
"""What a client means when it requests again with a connection that has changed meanwhile.

Does:  a three-way merge of what the caller was last given, what it asks for now, and what the connection is by now
       (healing and refreshing change it behind the caller's back), so that a stale object does not undo a heal.
Place: used by `Begin` on hops whose caller is an application.
State: none; a pure function.
"""

from __future__ import annotations

from nsm_sdk.api import Connection


def merge(returned: Connection, asked: Connection, current: Connection) -> Connection:
    """The connection to request: `current`, with what the caller changed since it was given `returned`.

    The caller may change the endpoint's name, the context (IP, Ethernet, DNS, MTU, extra context) and the labels.
    Id, path, mechanism, payload, service and state are those of the connection as it is.
    """
    merged = Connection()
    merged.CopyFrom(current)
    if asked.network_service_endpoint_name != returned.network_service_endpoint_name:
        merged.network_service_endpoint_name = asked.network_service_endpoint_name
    _merge_map(merged.labels, returned.labels, asked.labels)
    if not current.HasField("context"):
        if asked.HasField("context"):
            merged.context.CopyFrom(asked.context)
        return merged
    if asked.context == returned.context:
        return merged
    extra = dict(current.context.extra_context)
    merged.context.CopyFrom(asked.context)
    merged.context.extra_context.clear()
    merged.context.extra_context.update(extra)
    _merge_map(merged.context.extra_context, returned.context.extra_context, asked.context.extra_context)
    return merged


def _merge_map(into: object, returned: object, asked: object) -> None:
    """Apply the caller's own additions, changes and removals to `into`."""
    target, before, now = _as_map(into), _as_map(returned), _as_map(asked)
    for key in list(before):
        if key not in now:
            target.pop(key, None)
    for key in list(now):
        if key not in before or before[key] != now[key]:
            target[key] = now[key]


def _as_map(field: object) -> dict[str, str]:
    # Protobuf maps behave as dictionaries but are not typed as ones.
    return field  # type: ignore[return-value]
