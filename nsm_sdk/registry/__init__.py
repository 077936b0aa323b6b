# SPDX-License-Identifier: Apache-2.0
"""Registries: who offers what, where; and the elements that choose by it.

Does:  re-exports what the modules of this room define.
Place: above elements, below transport. `Begin`, `Connect`, `Refresh`, `Retry`, `Heal` and `UpdatePath` here are those
       of the registry family; connection elements of the same names live in `nsm_sdk.elements`, `nsm_sdk.heal`.
State: none.
"""

from nsm_sdk.registry.alternatives import Failures, Option, try_each
from nsm_sdk.registry.begin import Begin
from nsm_sdk.registry.by_domain import ByDomain, names_domain
from nsm_sdk.registry.candidates import Candidates, UpdateCandidates
from nsm_sdk.registry.connect import Connect, registry_of
from nsm_sdk.registry.discover import OFFER, USED, Discover, Offer, find_service
from nsm_sdk.registry.discover_forwarder import FORWARDER, DiscoverForwarder
from nsm_sdk.registry.expire import DEFAULT_LIFE, Expire
from nsm_sdk.registry.fields import DefaultPayload, NodeLabels, RegistrationTime
from nsm_sdk.registry.heal import Heal
from nsm_sdk.registry.local_bypass import LocalBypass
from nsm_sdk.registry.matching import (
    endpoint_matches,
    is_subset,
    select_endpoints,
    select_forwarders,
    service_matches,
)
from nsm_sdk.registry.memory import Memory
from nsm_sdk.registry.names import unique_name
from nsm_sdk.registry.path import AuthPath, parse_path
from nsm_sdk.registry.refresh import Refresh
from nsm_sdk.registry.retry import Retry
from nsm_sdk.registry.round_robin import RoundRobin
from nsm_sdk.registry.store import MemoryStore
from nsm_sdk.registry.swap_ip import SwapIP
from nsm_sdk.registry.update_path import TokenSource, UpdatePath

__all__ = [
    "DEFAULT_LIFE",
    "FORWARDER",
    "OFFER",
    "USED",
    "AuthPath",
    "Begin",
    "ByDomain",
    "Candidates",
    "Connect",
    "DefaultPayload",
    "Discover",
    "DiscoverForwarder",
    "Expire",
    "Failures",
    "Heal",
    "LocalBypass",
    "Memory",
    "MemoryStore",
    "NodeLabels",
    "Offer",
    "Option",
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
