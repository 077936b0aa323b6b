# SPDX-License-Identifier: Apache-2.0
"""Registries: who offers what, where; and the elements that choose by it.

Does:  re-exports what the modules of this room define.
Place: above elements, below transport. Elements that have the name of a connection element are exported with a prefix
       (`RegistryBegin`); `nsm_sdk.registry.Begin` is the same.
"""

from nsm_sdk.registry.begin import Begin as Begin
from nsm_sdk.registry.begin import Begin as RegistryBegin
from nsm_sdk.registry.candidates import Candidates, UpdateCandidates
from nsm_sdk.registry.connect import Connect as Connect
from nsm_sdk.registry.connect import Connect as RegistryConnect
from nsm_sdk.registry.connect import registry_of
from nsm_sdk.registry.defaults import DefaultPayload, NodeLabels, RegistrationTime
from nsm_sdk.registry.discover import USED, Choose, Discover, RoundRobin, find_service
from nsm_sdk.registry.discover_forwarder import FORWARDER, DiscoverForwarder
from nsm_sdk.registry.expire import DEFAULT_LIFE, Expire
from nsm_sdk.registry.failover import Option, RecentFailures, try_each
from nsm_sdk.registry.interdomain import ByDomain, SwapIP, names_domain, unique_name
from nsm_sdk.registry.keep_alive import Heal as Heal
from nsm_sdk.registry.keep_alive import Heal as RegistryHeal
from nsm_sdk.registry.keep_alive import Refresh as Refresh
from nsm_sdk.registry.keep_alive import Refresh as RegistryRefresh
from nsm_sdk.registry.keep_alive import Retry as RegistryRetry
from nsm_sdk.registry.keep_alive import Retry as Retry
from nsm_sdk.registry.local_bypass import LocalBypass
from nsm_sdk.registry.matching import (
    endpoint_matches,
    is_subset,
    select_endpoints,
    select_forwarders,
    service_matches,
)
from nsm_sdk.registry.path import AuthPath, TokenSource, parse_path
from nsm_sdk.registry.path import UpdatePath as RegistryUpdatePath
from nsm_sdk.registry.path import UpdatePath as UpdatePath
from nsm_sdk.registry.store import Memory, MemoryStore

__all__ = [
    "DEFAULT_LIFE",
    "FORWARDER",
    "USED",
    "AuthPath",
    "ByDomain",
    "Candidates",
    "Choose",
    "DefaultPayload",
    "Discover",
    "DiscoverForwarder",
    "Expire",
    "LocalBypass",
    "Memory",
    "MemoryStore",
    "NodeLabels",
    "Option",
    "RecentFailures",
    "RegistrationTime",
    "RegistryBegin",
    "RegistryConnect",
    "RegistryHeal",
    "RegistryRefresh",
    "RegistryRetry",
    "RegistryUpdatePath",
    "RoundRobin",
    "SwapIP",
    "TokenSource",
    "UpdateCandidates",
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
