# SPDX-License-Identifier: Apache-2.0
"""The recipe of a forwarder.

Does:  finds the endpoint, agrees with it on a mechanism, and joins both legs with a datapath.
Place: `nsm run forwarder`, the lab.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsm_sdk.chains.nse import served
from nsm_sdk.core import Chain, Dial, Element, Role, Service
from nsm_sdk.elements import Connect, Follower, Hub, Watch
from nsm_sdk.mechanisms import Datapath, Join
from nsm_sdk.registry import Candidates, Discover
from nsm_sdk.security import TokenSource


def forwarder(
    name: str,
    *,
    manager: str,
    dial: Dial,
    tokens: TokenSource,
    datapath: Datapath,
    authorize: Sequence[Element] = (),
    secret: str = "",
    services: Sequence[Service] = (),
) -> Role:
    """A forwarder called `name` of the manager at the URL `manager`, that joins connections with `datapath`."""
    hub, follower = Hub(), Follower()
    return Role(
        name,
        connection=served(
            name,
            Discover(Candidates(lambda: dial(manager))),
            Join(datapath),
            Connect(dial),
            tokens=tokens,
            hub=hub,
            follower=follower,
            authorize=authorize,
            secret=secret,
        ),
        monitor=Chain("monitor", Watch(hub)),
        services=services,
    )
