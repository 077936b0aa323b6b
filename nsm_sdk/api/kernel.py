# SPDX-License-Identifier: Apache-2.0
"""The kernel mechanism: how a client asks for it, and how an endpoint completes it.

Does:  fills in name and namespace on both sides.
Place: the kernel elements of nsm_sdk.mechanisms.
"""

from __future__ import annotations

from collections.abc import Callable

from nsm_sdk.api._gen.connection import Connection
from nsm_sdk.api._gen.networkservice import NetworkServiceRequest
from nsm_sdk.api.interface import check_interface_name, interface_name
from nsm_sdk.api.mechanism import DEFAULT_NETNS_URL, KERNEL, LOCAL, Kernel


def prefer_kernel(
    request: NetworkServiceRequest,
    *,
    netns_url: str = DEFAULT_NETNS_URL,
    name: Callable[[str], str] = interface_name,
) -> None:
    """Makes the request ask for a kernel interface in `netns_url`; may be called again without harm.

    Kernel preferences that are there get the namespace and, where they have none, a name made by `name(service)`;
    where there is none, one is added. InvalidRequest for a name that Linux does not take.
    """
    views = [view for view in map(Kernel.of, request.mechanism_preferences) if view]
    if not views:
        views = [Kernel(request.mechanism_preferences.add(cls=LOCAL, type=KERNEL))]
    for view in views:
        _complete(view, request.connection.network_service, netns_url, name)


def complete_kernel(
    conn: Connection, *, netns_url: str = DEFAULT_NETNS_URL, name: Callable[[str], str] = interface_name
) -> None:
    """Gives a connection of the kernel mechanism its namespace and, where it has none, a name; leaves others alone."""
    view = Kernel.of(conn.mechanism) if conn.HasField("mechanism") else None
    if view:
        _complete(view, conn.network_service, netns_url, name)


def _complete(view: Kernel, service: str, netns_url: str, name: Callable[[str], str]) -> None:
    chosen = view.interface_name or name(service)
    check_interface_name(chosen)
    view.interface_name = chosen
    view.netns_url = netns_url
