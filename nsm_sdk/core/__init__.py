# SPDX-License-Identifier: Apache-2.0
"""The core: chains of elements, the state of a connection, and the lifetime of a hop.

Does:  re-exports what the modules of this room define.
Place: below every element.
State: none.
"""

from __future__ import annotations

from nsm_sdk.core.block import Block
from nsm_sdk.core.call import (
    NO_EVENTS,
    NOBODY,
    Call,
    Cause,
    Done,
    Events,
    Outcome,
    Peer,
    Still,
    cleanup_time,
    narrowed,
)
from nsm_sdk.core.chance import dice
from nsm_sdk.core.clock import Clock, SystemClock
from nsm_sdk.core.connection import END, CloseFn, ConnectionChain, Element, Next, RequestFn
from nsm_sdk.core.layer import Chain, Layer, passes, walk
from nsm_sdk.core.lock import KeyedLock
from nsm_sdk.core.observe import STREAMING, Observer, Place, Timing
from nsm_sdk.core.querying import QUERY_END, QueryElement, QueryNext
from nsm_sdk.core.registering import (
    NS,
    NSE,
    E,
    Found,
    Kind,
    Query,
    RegistryElement,
    RegistryNext,
    find_all,
    find_one,
    registry_end,
)
from nsm_sdk.core.role import Bound, Dial, Listen, Role, Running, Served
from nsm_sdk.core.runtime import Runtime
from nsm_sdk.core.service import Service
from nsm_sdk.core.show import Secret, where
from nsm_sdk.core.slot import Slot, State
from nsm_sdk.core.timers import Timer, TimerHeap
from nsm_sdk.core.watching import WATCH_END, WatchElement, WatchFn, WatchNext

__all__ = [
    "END",
    "NOBODY",
    "NO_EVENTS",
    "NS",
    "NSE",
    "QUERY_END",
    "STREAMING",
    "WATCH_END",
    "Block",
    "Bound",
    "Call",
    "Cause",
    "Chain",
    "Clock",
    "CloseFn",
    "ConnectionChain",
    "Dial",
    "Done",
    "E",
    "Element",
    "Events",
    "Found",
    "KeyedLock",
    "Kind",
    "Layer",
    "Listen",
    "Next",
    "Observer",
    "Outcome",
    "Peer",
    "Place",
    "Query",
    "QueryElement",
    "QueryNext",
    "RegistryElement",
    "RegistryNext",
    "RequestFn",
    "Role",
    "Running",
    "Runtime",
    "Secret",
    "Served",
    "Service",
    "Slot",
    "State",
    "Still",
    "SystemClock",
    "Timer",
    "TimerHeap",
    "Timing",
    "WatchElement",
    "WatchFn",
    "WatchNext",
    "cleanup_time",
    "dice",
    "find_all",
    "find_one",
    "narrowed",
    "passes",
    "registry_end",
    "walk",
    "where",
]
