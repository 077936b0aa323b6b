# SPDX-License-Identifier: Apache-2.0
"""The recipe of a registry, and of whoever registers with one.

Does:  `registry` keeps services and endpoints in memory. `registrant` is the client side: it registers through a
       manager, and keeps what it has registered alive.
Place: `nsm run registry`; `registrant` inside `Endpoint` and the forwarder.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NS, NSE, Bound, Chain, Dial, RegistryElement, Role, Service
from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.registry import (
    DEFAULT_LIFE,
    Begin,
    ByDomain,
    Connect,
    DefaultPayload,
    Expire,
    Heal,
    Memory,
    Refresh,
    RegistrationTime,
    Retry,
    UpdatePath,
)
from nsm_sdk.security import TokenSource


def nowhere(url: str) -> Bound:
    """For a registry that never calls anybody."""
    raise FailedPrecondition(f"this registry cannot reach {url}", hint="give it a way to dial")


def registry(
    name: str,
    *,
    tokens: TokenSource,
    longest: float = DEFAULT_LIFE,
    dial: Dial = nowhere,
    proxy: str = "",
    authorize_ns: Sequence[RegistryElement[NetworkService]] = (),
    authorize_nse: Sequence[RegistryElement[NetworkServiceEndpoint]] = (),
    services: Sequence[Service] = (),
) -> Role:
    """A registry in memory. `longest`: the longest life, in seconds, that an endpoint gets between refreshes.

    Names of other domains (`service@domain`) go to the registry proxy at the URL `proxy`, and are refused without one.
    """
    return Role(
        name,
        ns=Chain(
            "services",
            UpdatePath(tokens),
            *authorize_ns,
            Begin(NS),
            DefaultPayload(),
            ByDomain(Connect(dial, NS, proxy)),
            Memory(NS),
        ),
        nse=Chain(
            "endpoints",
            UpdatePath(tokens),
            *authorize_nse,
            Begin(NSE),
            ByDomain(Connect(dial, NSE, proxy)),
            RegistrationTime(),
            Expire(longest),
            Memory(NSE),
        ),
        services=services,
    )


def registrant(
    name: str,
    *,
    manager: str,
    dial: Dial,
    life: float | None = None,
    try_time: float = 15.0,
    services: Sequence[Service] = (),
) -> Role:
    """Registers with the manager at the URL `manager`; `life`: how long a life, in seconds, it asks for each time."""
    return Role(
        name,
        ns=Chain(
            "register services",
            Begin(NS),
            Retry(NS, try_timeout=try_time),
            Heal(NS),
            Connect(dial, NS, manager),
        ),
        nse=Chain(
            "register endpoints",
            Begin(NSE),
            Retry(NSE, try_timeout=try_time),
            Heal(NSE),
            Refresh(life),
            Connect(dial, NSE, manager),
        ),
        services=services,
    )
