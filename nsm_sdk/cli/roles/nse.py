# SPDX-License-Identifier: Apache-2.0
"""`nsm run nse`.

Does:  settings of the endpoint, and its life as a process.
Place: a program of its own.
State: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsm_sdk.api import Target, with_client_info
from nsm_sdk.cli import codecs
from nsm_sdk.cli.roles.common import (
    CONNECT_MEANING,
    DATAPATH,
    DATAPATH_MEANING,
    LISTEN_MEANING,
    MANAGER,
    NETNS_MEANING,
    NO_LABELS,
    Remembering,
)
from nsm_sdk.cli.settings import setting

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program
    from nsm_sdk.core import Role
    from nsm_sdk.endpoint import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Remembering):
    """What an endpoint can be told."""

    name: str = setting(codecs.NAME, "icmp-server", "name of this program in the mesh")
    connect_to: str = setting(codecs.ADDRESS, MANAGER, CONNECT_MEANING)
    listen_on: tuple[Target, ...] = setting(codecs.MAYBE_LISTEN, "", LISTEN_MEANING, shown="a temporary unix socket")
    service_names: tuple[str, ...] = setting(
        codecs.SERVICE_NAMES, "icmp-responder", "the network services that it offers"
    )
    labels: Mapping[str, str] = setting(codecs.LABELS, "", "labels under each of its services")
    payload: str = setting(codecs.PAYLOAD, "ETHERNET", "payload of its services")
    cidr_prefix: tuple[tuple[str, ...], ...] = setting(
        codecs.PREFIXES,
        "169.254.0.0/16",
        "where addresses come from; a connection gets one of each group, a group's prefixes are alternatives",
    )
    ipam_policy: str = setting(
        codecs.choice("polite", "strict"),
        "polite",
        "addresses that clients bring from elsewhere stay (polite) or are taken out (strict)",
    )
    register_service: bool = setting(codecs.BOOLEAN, "true", "register the network services too, not only the endpoint")
    unregister_itself: bool = setting(
        codecs.BOOLEAN, "false", "unregister when told to leave; otherwise the registration expires"
    )
    idle_timeout: float = setting(codecs.DURATION, "0", "leave after that long without connections; 0: never")
    netns: str = setting(codecs.NETNS, "", NETNS_MEANING, shown="own")
    datapath: str = setting(DATAPATH, "kernel", DATAPATH_MEANING)
    dial_timeout: float = setting(codecs.POSITIVE, "750ms", "the longest time to wait for a connection to a peer")


def endpoint(settings: Settings, machine: Mapping[str, str] = NO_LABELS, **options: Any) -> Endpoint:
    """The endpoint; `options` are more arguments of `Endpoint`."""
    from nsm_sdk.cli.roles import parts
    from nsm_sdk.endpoint import Endpoint
    from nsm_sdk.ipam import ipam_chain

    tokens = parts.tokens("nse", settings)
    return Endpoint(
        settings.name,
        ipam_chain(settings.cidr_prefix, policy=settings.ipam_policy),
        service=settings.service_names,
        registry=settings.connect_to,
        listen=parts.listeners(settings.listen_on),
        payload=settings.payload,
        labels=with_client_info(settings.labels, machine),
        identity=tokens,
        namespace=settings.netns,
        simulated=settings.datapath == "simulated",
        register="background",
        register_service=settings.register_service,
        unregister=settings.unregister_itself,
        idle_timeout=settings.idle_timeout,
        dial=parts.dialer(tokens, settings.dial_timeout),
        **options,
    )


def build(settings: Settings) -> Role:
    """The chains."""
    return endpoint(settings).role


async def serve(program: Program, settings: Settings) -> None:
    """Run the endpoint until it is told to leave, or nobody needs it."""
    from nsm_sdk.cli.roles import parts

    options = {"on_idle": program.stop, "drain": program.drain_time, "secret": parts.kept_secret(settings.state)}
    await parts.serve_registered(program, endpoint(settings, program.machine, **options))
