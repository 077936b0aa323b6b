# SPDX-License-Identifier: Apache-2.0
"""`nsm run nse`.

Does:  settings of the endpoint, and its life as a process.
Place: a program of its own.
State: none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

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
    from nsm_sdk.transport import Dialer


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


def build(
    settings: Settings,
    machine: Mapping[str, str] = NO_LABELS,
    idle: Callable[[], object] = lambda: None,
    dialer: Dialer | None = None,
    secret: str = "",
) -> Role:
    """The chains; `idle` is called when no connection has needed this endpoint for a while. `secret` makes ids that
    stay the same over restarts."""
    from nsm_sdk.api import KERNEL
    from nsm_sdk.chains import nse
    from nsm_sdk.cli.roles import parts
    from nsm_sdk.elements import OnIdle
    from nsm_sdk.ipam import ipam_chain
    from nsm_sdk.mechanisms import KernelServer, Mechanisms

    tokens = parts.tokens("nse", settings)
    return nse(
        settings.name,
        *([OnIdle(settings.idle_timeout, idle)] if settings.idle_timeout else []),
        ipam_chain(settings.cidr_prefix, policy=settings.ipam_policy),
        Mechanisms({KERNEL: KernelServer(namespace=settings.netns)}, unasked=settings.datapath == "simulated"),
        tokens=tokens,
        secret=secret,
        services=(tokens, *([dialer] if dialer is not None else [])),
    )


async def serve(program: Program, settings: Settings) -> None:
    """Run the endpoint until it is told to leave, or nobody needs it."""
    from nsm_sdk.cli.roles import parts

    tokens = parts.tokens("nse", settings)
    dialer = parts.dialer(tokens, settings.dial_timeout)
    registration = parts.Registration(
        program,
        dialer,
        manager=settings.connect_to,
        services=settings.service_names,
        labels=with_client_info(settings.labels, program.machine),
        payload=settings.payload,
        register_services=settings.register_service,
    )
    secret = parts.kept_secret(settings.state)
    role = parts.reported(build(settings, program.machine, program.stop, dialer, secret), program)
    with ExitStack() as stack:
        targets = settings.listen_on or (stack.enter_context(_temporary()),)
        await parts.serve_registered(program, role, targets, registration, unregister=settings.unregister_itself)


@contextmanager
def _temporary() -> Iterator[Target]:
    """A unix socket in a folder of its own, which goes with this program."""
    from nsm_sdk.transport.sockets import short_folder

    with TemporaryDirectory(prefix="nsm-nse-", dir=short_folder(), ignore_cleanup_errors=True) as folder:
        # The folder is closed to others by default; the forwarder may be another user.
        os.chmod(folder, 0o755)
        yield Target("unix", f"{folder}/listen.on")
