# SPDX-License-Identifier: Apache-2.0
"""The recipe of an endpoint.

Does:  puts the part of a chain together that every hop which others call has (`served`), and an endpoint's whole chain.
Place: `Endpoint`, `nsm run nse`, the recipes of the hops between, and applications that want their own order.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsm_sdk.core import Chain, Element, Next, Role, Service
from nsm_sdk.elements import Begin, Follower, Hub, LoadLimit, Monitor, Timeout, TrimPath, UpdatePath, Watch
from nsm_sdk.security import Authenticate, TokenSource, UpdateToken


def served(
    name: str,
    *elements: Element | Chain[Next],
    tokens: TokenSource,
    hub: Hub,
    follower: Follower | None = None,
    authorize: Sequence[Element] = (),
    secret: str = "",
    limit: int = 0,
) -> Chain[Next]:
    """A chain that peers call: path first, then who calls, then order, then how long it lives, then who watches it.

    `limit`: how many Requests of connections that do not live here yet are worked on at once; 0: any number.
    """
    begin = Begin()
    return Chain(
        name,
        UpdatePath(name, opens=False, secret=secret),
        Authenticate(),
        *([LoadLimit(limit, lives=begin.lives)] if limit else []),
        begin,
        UpdateToken(tokens),
        *authorize,
        Timeout(),
        Monitor(hub, follower),
        *elements,
    )


def nse(
    name: str,
    *elements: Element | Chain[Next],
    tokens: TokenSource,
    authorize: Sequence[Element] = (),
    secret: str = "",
    onward: Sequence[Element] = (),
    services: Sequence[Service] = (),
) -> Role:
    """An endpoint called `name`; `elements` do its work: addresses, mechanisms, whatever the service is.

    `onward` are the elements of an endpoint that hands its connections on to another, `Connect` the last of them.
    """
    hub = Hub()
    return Role(
        name,
        connection=served(
            name,
            TrimPath(),
            Chain("own", *elements),
            *([Chain("onward", *onward)] if onward else []),
            tokens=tokens,
            hub=hub,
            follower=Follower() if onward else None,
            authorize=authorize,
            secret=secret,
        ),
        monitor=Chain("monitor", Watch(hub)),
        services=services,
    )
