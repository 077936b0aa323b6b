# SPDX-License-Identifier: Apache-2.0
"""The recipe of a client.

Does:  puts a client's chain together: what keeps the connection alive first, what speaks with the manager last.
Place: `Client`, `nsm run nsc`, and applications that want their own order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsm_sdk.core import Chain, Dial, Element, Role, Service
from nsm_sdk.elements import Begin, ClientInfo, ClientUrl, Connect, Refresh, Retry, Tell, UpdatePath
from nsm_sdk.elements.notify import Told


def nsc(
    name: str,
    *elements: Element,
    manager: str,
    dial: Dial,
    told: Told | None = None,
    retry: Retry | None = None,
    heal: Sequence[Element] = (),
    resume: Element | None = None,
    environment: Mapping[str, str] | None = None,
    secret: str = "",
    services: Sequence[Service] = (),
) -> Role:
    """A client called `name` of the manager at the URL `manager`.

    `elements` are the client's own, close to the wire: they see the request as it leaves and the answer as it comes.
    `retry` repeats requests that fail; `told` hears of every change; `heal` are the elements that watch and repair;
    `resume` takes up what an earlier run has left (`nsm_sdk.heal.Resume`); `environment` may hold NODE_NAME, POD_NAME
    and CLUSTER_NAME, which become labels.
    """
    return Role(
        name,
        connection=Chain(
            name,
            *([retry] if retry is not None else []),
            *([resume] if resume is not None else []),
            UpdatePath(name, secret=secret),
            Begin(merges=True),
            *([Tell(told)] if told is not None else []),
            Refresh(),
            ClientUrl(manager),
            Chain("heal", *heal),
            ClientInfo(environment or {}),
            Chain("own", *elements),
            Connect(dial),
        ),
        services=services,
    )
