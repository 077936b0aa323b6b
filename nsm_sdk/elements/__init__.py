# SPDX-License-Identifier: Apache-2.0
"""Connection elements that need no other room.

Does:  re-exports them.
Place: any chain of the connection family.
"""

from __future__ import annotations

from nsm_sdk.elements.begin import Begin, forget_endpoint
from nsm_sdk.elements.cleanup import Cleanup
from nsm_sdk.elements.connect import NEXT_HOP, ClientUrl, Connect, NextHop
from nsm_sdk.elements.idle import OnIdle
from nsm_sdk.elements.labels import ClientInfo, SetExtraContext
from nsm_sdk.elements.load_limit import LoadLimit
from nsm_sdk.elements.merge import merge
from nsm_sdk.elements.monitor import Monitor
from nsm_sdk.elements.monitor_client import Follower, Following, Heard, News
from nsm_sdk.elements.monitor_server import Hub, Watch
from nsm_sdk.elements.notify import Tell, Told
from nsm_sdk.elements.passthrough import Passthrough
from nsm_sdk.elements.refresh import REFRESHING, Refresh, Refreshing, refresh_after
from nsm_sdk.elements.retry import Retry
from nsm_sdk.elements.swap_ip import SwapDestinationIp, SwapSourceIp
from nsm_sdk.elements.switch import Case, Condition, Switch, otherwise
from nsm_sdk.elements.timeout import Timeout, close_after
from nsm_sdk.elements.update_path import TrimPath, UpdatePath

__all__ = [
    "NEXT_HOP",
    "REFRESHING",
    "Begin",
    "Case",
    "Cleanup",
    "ClientInfo",
    "ClientUrl",
    "Condition",
    "Connect",
    "Follower",
    "Following",
    "Heard",
    "Hub",
    "LoadLimit",
    "Monitor",
    "News",
    "NextHop",
    "OnIdle",
    "Passthrough",
    "Refresh",
    "Refreshing",
    "Retry",
    "SetExtraContext",
    "SwapDestinationIp",
    "SwapSourceIp",
    "Switch",
    "Tell",
    "Timeout",
    "Told",
    "TrimPath",
    "UpdatePath",
    "Watch",
    "close_after",
    "forget_endpoint",
    "merge",
    "otherwise",
    "refresh_after",
]
