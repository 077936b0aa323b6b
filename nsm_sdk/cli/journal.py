# SPDX-License-Identifier: Apache-2.0
"""What happened to each connection, for whoever asks later.

Does:  keeps the latest events of the latest connections.
Place: behind the admin socket of a program; `nsm explain` prints it.
State: bounded: `CONNECTIONS` ids with `EVENTS` events each.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

CONNECTIONS = 1000
EVENTS = 100


class Journal:
    """Events by connection id."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, deque[dict[str, Any]]] = OrderedDict()

    def note(self, event: Mapping[str, Any]) -> None:
        """Add an event to the connection that its `id` names."""
        about = event.get("id")
        if not isinstance(about, str) or not about:
            return
        events = self._events.get(about)
        if events is None:
            events = self._events[about] = deque(maxlen=EVENTS)
            if len(self._events) > CONNECTIONS:
                self._events.popitem(last=False)
        else:
            self._events.move_to_end(about)
        events.append({"time": time.time(), **event})

    def of(self, id: str) -> list[dict[str, Any]] | None:
        """The events of one connection, oldest first; None for one that nobody knows."""
        events = self._events.get(id)
        return None if events is None else list(events)

    def ids(self) -> list[str]:
        """The connections that are known, the latest last."""
        return list(self._events)
