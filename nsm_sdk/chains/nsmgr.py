# SPDX-License-Identifier: Apache-2.0
"""The recipe of a manager.

Does:  takes requests of the node's clients to a forwarder, and registrations of the node's endpoints to the registry
       (or keeps them itself, where there is none).
Place: `nsm run nsmgr`, the lab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nsm_sdk.api import with_client_info
from nsm_sdk.chains.nse import served
from nsm_sdk.core import NS, NSE, Bound, Chain, Dial, Element, Role, Service, registry_end
from nsm_sdk.elements import ClientInfo, Connect, Follower, Hub, Watch
from nsm_sdk.elements.load_limit import MOST_AT_ONCE
from nsm_sdk.ipam import ClusterPrefixes
from nsm_sdk.registry import (
    DEFAULT_LIFE,
    FORWARDER,
    Begin,
    Candidates,
    DefaultPayload,
    DiscoverForwarder,
    Expire,
    LocalBypass,
    Memory,
    NodeLabels,
    RegistrationTime,
    RegistryConnect,
    UpdateCandidates,
    UpdatePath,
)
from nsm_sdk.security import TokenSource


def _no_prefixes() -> Sequence[str]:
    return ()


def nsmgr(
    name: str,
    *,
    url: str | Callable[[], str],
    dial: Dial,
    tokens: TokenSource,
    registry: str = "",
    forwarder_service: str = FORWARDER,
    longest: float = DEFAULT_LIFE,
    environment: Mapping[str, str] | None = None,
    excluded: Callable[[], Sequence[str]] = _no_prefixes,
    authorize: Sequence[Element] = (),
    secret: str = "",
    services: Sequence[Service] = (),
) -> Role:
    """A manager called `name` that others reach at `url`, with the registry at the URL `registry` (empty: in memory).

    `excluded` answers the cluster's own prefixes; `longest` is the longest life of an endpoint between refreshes, in
    seconds; `environment` may hold NODE_NAME, POD_NAME and CLUSTER_NAME.
    """
    hub, follower = Hub(), Follower()
    environment = environment or {}
    bypass = LocalBypass(url)
    ns_end: list[Any]
    nse_end: list[Any]
    if registry:
        ns_end, nse_end = [RegistryConnect(dial, NS, registry)], [RegistryConnect(dial, NSE, registry)]
    else:
        ns_end, nse_end = [DefaultPayload(), Memory(NS)], [RegistrationTime(), Memory(NSE)]
    # What this manager looks up goes the way of everybody's finds, so that it sees the endpoints' own addresses.
    lookup = Bound(
        ns=Chain("services", *ns_end).bind(registry_end()),
        nse=Chain("endpoints", bypass, *nse_end).bind(registry_end()),
    )
    candidates = Candidates(lookup)
    return Role(
        name,
        connection=served(
            name,
            ClientInfo(environment),
            DiscoverForwarder(candidates, service=forwarder_service, manager=url),
            ClusterPrefixes(excluded),
            Connect(dial),
            tokens=tokens,
            hub=hub,
            follower=follower,
            authorize=authorize,
            secret=secret,
            limit=MOST_AT_ONCE,
        ),
        monitor=Chain("monitor", Watch(hub)),
        ns=Chain("services", UpdatePath(tokens), Begin(NS), UpdateCandidates(NS, candidates), *ns_end),
        nse=Chain(
            "endpoints",
            UpdatePath(tokens),
            Begin(NSE),
            NodeLabels(with_client_info({}, environment)),
            Expire(longest),
            UpdateCandidates(NSE, candidates, manager=url),
            bypass,
            *nse_end,
        ),
        services=services,
    )
