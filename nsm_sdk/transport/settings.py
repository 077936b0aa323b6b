# SPDX-License-Identifier: Apache-2.0
"""What can be set on a connection.

Does:  names the numbers of this room.
Place: listeners and dialers.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE = 16 << 20
"""Bytes of one message, both ways. Go programs send at most 4 MiB unless told; a peer must not fill our memory."""

MAX_METADATA = 256 << 10
"""Bytes of all metadata of one call. The registry's path holds a token per hop, which outgrows gRPC's usual 8 KiB."""

MAX_STREAMS = 16_384
"""Calls of one connection of a peer at a time. Monitor streams are among them: a peer of other make opens one for each
of its connections."""

DIAL_TIMEOUT = 1.0
"""Seconds in which a peer has to answer a connection attempt."""

GRACE = 0.25
"""Seconds for what is on its way when a connection ends in good order; calls have been drained before."""

PING_EVERY = 330.0
"""Seconds between keepalive pings of a client. Go servers hang up on clients that ping within 5 minutes."""

BACKOFF = 0.05
"""Seconds between two attempts to connect, so that a peer which restarts is noticed quickly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """The client side."""

    dial_timeout: float = DIAL_TIMEOUT
    """Seconds until a peer that is not there becomes `Unavailable`."""
    ping_every: float = PING_EVERY
    """Seconds between keepalive pings while calls are running."""
    max_message: int = MAX_MESSAGE
    """Bytes of the largest message."""
