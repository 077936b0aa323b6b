# SPDX-License-Identifier: Apache-2.0
"""What can be set on a connection, and how grpcio is told.

Does:  names the numbers of this room; makes channel options of them.
Place: listeners and dialers.
State: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def _common(max_message: int) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", max_message),
        ("grpc.max_metadata_size", MAX_METADATA // 2),
        ("grpc.absolute_max_metadata_size", MAX_METADATA),
    ]


def channel_options(settings: ChannelSettings) -> list[tuple[str, Any]]:
    """Options of a gRPC channel."""
    backoff = int(BACKOFF * 1000)
    return [
        *_common(settings.max_message),
        ("grpc.initial_reconnect_backoff_ms", backoff),
        ("grpc.max_reconnect_backoff_ms", backoff),
        # The least time that one attempt gets, not the least pause between two.
        ("grpc.min_reconnect_backoff_ms", max(int(settings.dial_timeout * 1000), 1000)),
        ("grpc.keepalive_time_ms", int(settings.ping_every * 1000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        # Two dialers must not share a connection: tokens are per call, but limits and lifetimes are per dialer.
        ("grpc.use_local_subchannel_pool", 1),
        # Whether to call again is decided by elements, which know what a call meant; it also costs time on every call.
        ("grpc.enable_retries", 0),
        # Peers are named by their addresses; a proxy of the environment is for the web.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]


def server_options(max_message: int) -> list[tuple[str, Any]]:
    """Options of a gRPC server."""
    return [
        *_common(max_message),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # With port sharing a second server would silently take half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 300_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Go clients may ping every 10 seconds, with or without calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
        ("grpc.http2.max_ping_strikes", 10),
    ]
