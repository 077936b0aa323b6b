# SPDX-License-Identifier: Apache-2.0
"""Registries: who offers what, where; and the elements that choose by it.

Does:  re-exports what the modules of this room define.
Place: above elements, below transport. `Begin`, `Connect`, `Refresh`, `Retry`, `Heal` and `UpdatePath` here are those
       of the registry family; connection elements of the same names live in `nsm_sdk.elements`, `nsm_sdk.heal`.
State: none.
"""

from nsm_sdk.registry.begin import Begin
from nsm_sdk.registry.candidates import Candidates, UpdateCandidates
from nsm_sdk.registry.connect import Connect, registry_of
from nsm_sdk.registry.defaults import DefaultPayload, NodeLabels, RegistrationTime
from nsm_sdk.registry.discover import USED, Choose, Discover, RoundRobin, find_service
from nsm_sdk.registry.discover_forwarder import FORWARDER, DiscoverForwarder
from nsm_sdk.registry.expire import DEFAULT_LIFE, Expire
from nsm_sdk.registry.failover import Option, RecentFailures, try_each
from nsm_sdk.registry.interdomain import ByDomain, SwapIP, names_domain, unique_name
from nsm_sdk.registry.keep_alive import Heal, Refresh, Retry
from nsm_sdk.registry.local_bypass import LocalBypass
from nsm_sdk.registry.matching import (
    endpoint_matches,
    is_subset,
    select_endpoints,
    select_forwarders,
    service_matches,
)
from nsm_sdk.registry.path import AuthPath, TokenSource, UpdatePath, parse_path
from nsm_sdk.registry.store import Memory, MemoryStore

__all__ = [
    "DEFAULT_LIFE",
    "FORWARDER",
    "USED",
    "AuthPath",
    "Begin",
    "ByDomain",
    "Candidates",
    "Choose",
    "Connect",
    "DefaultPayload",
    "Discover",
    "DiscoverForwarder",
    "Expire",
    "Heal",
    "LocalBypass",
    "Memory",
    "MemoryStore",
    "NodeLabels",
    "Option",
    "RecentFailures",
    "Refresh",
    "RegistrationTime",
    "Retry",
    "RoundRobin",
    "SwapIP",
    "TokenSource",
    "UpdateCandidates",
    "UpdatePath",
    "endpoint_matches",
    "find_service",
    "is_subset",
    "names_domain",
    "parse_path",
    "registry_of",
    "select_endpoints",
    "select_forwarders",
    "service_matches",
    "try_each",
    "unique_name",
]
