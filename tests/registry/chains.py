# SPDX-License-Identifier: Apache-2.0
"""Chains of this room, put together for tests.

Does:  `registry_role`, `manager_role` (its registries only) and `registrar_role` (whoever registers).
Place: tests of the registry room; the real recipes are in `nsm_sdk.chains`.
State: none.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core import NS, NSE, Bound, Chain, Dial, Layer, RegistryNext, Role
from nsm_sdk.errors import Unavailable
from nsm_sdk.registry import (
    Begin,
    ByDomain,
    Connect,
    DefaultPayload,
    Expire,
    Heal,
    LocalBypass,
    Memory,
    MemoryStore,
    NodeLabels,
    Refresh,
    RegistrationTime,
    Retry,
    UpdatePath,
)


def jwt(**claims: object) -> str:
    """An unsigned token that says `claims`."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}."


class Tokens:
    """Tokens of one hop that live for ever."""

    def __init__(self, subject: str) -> None:
        self._token = jwt(sub=subject, exp=4e9)

    def token(self, peer: str) -> tuple[str, float]:
        return self._token, 4e9


def nowhere(url: str) -> Bound:
    """A dial that reaches nobody."""
    raise Unavailable(f"nobody at {url}")


def registry_role(
    *,
    name: str = "registry",
    life: float = 60.0,
    subject: str = "spiffe://example.org/registry",
    services: MemoryStore[NetworkService] | None = None,
    endpoints: MemoryStore[NetworkServiceEndpoint] | None = None,
    elsewhere: str = "",
    dial: Dial = nowhere,
) -> Role:
    """A registry in memory."""
    tokens = Tokens(subject)
    return Role(
        name,
        ns=Chain(
            "services",
            UpdatePath(tokens),
            DefaultPayload(),
            ByDomain(Connect(dial, NS, elsewhere)),
            Memory(NS, services),
        ),
        nse=Chain(
            "endpoints",
            UpdatePath(tokens),
            Begin(NSE),
            ByDomain(Connect(dial, NSE, elsewhere)),
            RegistrationTime(),
            Expire(life),
            Memory(NSE, endpoints),
        ),
    )


def manager_role(
    dial: Dial,
    registry: str,
    *,
    url: str | Callable[[], str],
    name: str = "nsmgr",
    life: float = 60.0,
    subject: str = "spiffe://example.org/nsmgr-1",
    labels: dict[str, str] | None = None,
) -> Role:
    """The registries that a manager offers."""
    tokens = Tokens(subject)
    return Role(
        name,
        ns=Chain("services", UpdatePath(tokens), Connect(dial, NS, registry)),
        nse=Chain(
            "endpoints",
            UpdatePath(tokens),
            Begin(NSE),
            NodeLabels(labels or {}),
            Expire(life),
            LocalBypass(url),
            Connect(dial, NSE, registry),
        ),
    )


def registrar_role(
    dial: Dial,
    manager: str,
    *extra: Layer[RegistryNext[NetworkServiceEndpoint]],
    name: str = "nse",
    life: float | None = None,
) -> Role:
    """Whoever registers at a manager, and stays registered."""
    return Role(
        name,
        ns=Chain("services", Begin(NS), Retry(NS), Heal(NS), Connect(dial, NS, manager)),
        nse=Chain("endpoints", Begin(NSE), Retry(NSE), Heal(NSE), Refresh(life), *extra, Connect(dial, NSE, manager)),
    )
