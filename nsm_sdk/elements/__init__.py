# SPDX-License-Identifier: Apache-2.0
"""Connection elements that need no other room.

Does:  re-exports them.
Place: any chain of the connection family.
State: none.
"""

from __future__ import annotations

from nsm_sdk.elements.begin import Begin, forget_endpoint
from nsm_sdk.elements.connect import FAR, Connect, Far
from nsm_sdk.elements.follow import Follower, Following, Heard, News
from nsm_sdk.elements.hub import Hub, Watch
from nsm_sdk.elements.merge import merge
from nsm_sdk.elements.monitor import Monitor
from nsm_sdk.elements.refresh import REFRESHING, Refresh, Refreshing, refresh_after
from nsm_sdk.elements.timeout import Timeout, close_after
from nsm_sdk.elements.update_path import UpdatePath

__all__ = [
    "FAR",
    "REFRESHING",
    "Begin",
    "Connect",
    "Far",
    "Follower",
    "Following",
    "Heard",
    "Hub",
    "Monitor",
    "News",
    "Refresh",
    "Refreshing",
    "Timeout",
    "UpdatePath",
    "Watch",
    "close_after",
    "forget_endpoint",
    "merge",
    "refresh_after",
]
