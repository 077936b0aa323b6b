# SPDX-License-Identifier: Apache-2.0
"""The core: chains of elements, the state of a connection, and the lifetime of a hop.

Does:  re-exports what the modules of this room define.
Place: below every element.
"""

from __future__ import annotations

from nsm_sdk.core.call import (
    NO_EVENTS,
    NOBODY,
    Call,
    Cause,
    Done,
    Events,
    Outcome,
    Peer,
    Slot,
    State,
    Still,
    cleanup_time,
    narrowed,
)
from nsm_sdk.core.chain import Chain, Layer, Secret, passes, walk, where
from nsm_sdk.core.connection import END, CloseFn, ConnectionChain, Element, Next, RequestFn
from nsm_sdk.core.lifecycle import Block, Service
from nsm_sdk.core.observe import STREAMING, Observer, Place, Timing
from nsm_sdk.core.query import QUERY_END, QueryElement, QueryNext
from nsm_sdk.core.registry import (
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
from nsm_sdk.core.runtime import Clock, Runtime, SystemClock, Timer, TimerHeap, dice
from nsm_sdk.core.sync import Backoff, KeyedLock, Mailbox
from nsm_sdk.core.watch import WATCH_END, WatchElement, WatchFn, WatchNext

__all__ = [
    "END",
    "NOBODY",
    "NO_EVENTS",
    "NS",
    "NSE",
    "QUERY_END",
    "STREAMING",
    "WATCH_END",
    "Backoff",
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
    "Mailbox",
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
