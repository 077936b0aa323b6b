# SPDX-License-Identifier: Apache-2.0
"""`nsm run forwarder`.

Does:  settings of the forwarder, and its life as a process.
Place: a program of its own, one or more per node.
State: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsm_sdk.api import Target, with_client_info
from nsm_sdk.cli import codecs
from nsm_sdk.cli.roles.common import (
    CONNECT_MEANING,
    DATAPATH,
    DATAPATH_MEANING,
    LISTEN_MEANING,
    MANAGER,
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
    """What a forwarder can be told."""

    name: str = setting(codecs.NAME, "forwarder", "name of this program in the mesh")
    listen_on: tuple[Target, ...] = setting(codecs.LISTEN, "unix:///listen.on.socket", LISTEN_MEANING)
    connect_to: str = setting(codecs.ADDRESS, MANAGER, CONNECT_MEANING)
    datapath: str = setting(DATAPATH, "kernel", DATAPATH_MEANING)
    orphan_timeout: float | None = setting(
        codecs.optional(codecs.DURATION),
        "",
        "how long after a start what nobody asks for again is kept",
        shown="NSM_MAX_TOKEN_LIFETIME",
    )
    labels: Mapping[str, str] = setting(codecs.LABELS, "p2p:true", "labels of this forwarder's registration")
    nsname: str = setting(codecs.NAME, "forwarder", "the network service under which it registers")
    tunnel_ip: str = setting(codecs.TUNNEL_IP, "", "address of this node for tunnels to other nodes")
    dial_timeout: float = setting(codecs.POSITIVE, "750ms", "the longest time to wait for a connection to a peer")

    @property
    def orphans(self) -> float:
        """Seconds after which orphans go."""
        return self.max_token_lifetime if self.orphan_timeout is None else self.orphan_timeout


def build(
    settings: Settings, machine: Mapping[str, str] = NO_LABELS, dialer: Dialer | None = None, secret: str = ""
) -> Role:
    """The chains; `secret` makes ids that stay the same over restarts."""
    from nsm_sdk.chains import forwarder
    from nsm_sdk.cli.roles import parts
    from nsm_sdk.mechanisms import Datapath, KernelDatapath, SimulatedDatapath

    tokens = parts.tokens("forwarder", settings)
    dialer = dialer or parts.dialer(tokens, settings.dial_timeout)
    datapath: Datapath
    if settings.datapath == "kernel":
        from nsm_sdk.netlink import NetlinkThread

        datapath = KernelDatapath(
            NetlinkThread(), name=settings.name, state=settings.state, orphan_timeout=settings.orphans
        )
    else:
        datapath = SimulatedDatapath()
    return forwarder(
        settings.name,
        manager=settings.connect_to,
        dial=dialer,
        tokens=tokens,
        datapath=datapath,
        secret=secret,
        services=(tokens, dialer),
    )


async def serve(program: Program, settings: Settings) -> None:
    """Run the forwarder until it is told to leave."""
    from nsm_sdk.cli.roles import parts
    from nsm_sdk.endpoint import OfferedService, RegisteredRole

    if settings.tunnel_ip:
        parts.not_yet("NSM_TUNNEL_IP")
    if settings.datapath == "kernel":
        await _check_machine()
    tokens = parts.tokens("forwarder", settings)
    dialer = parts.dialer(tokens, settings.dial_timeout)
    forwarder = RegisteredRole(
        build(settings, program.machine, dialer, parts.kept_secret(settings.state)),
        services=[OfferedService(settings.nsname)],
        registry=settings.connect_to,
        listen=parts.listeners(settings.listen_on),
        labels=with_client_info(settings.labels, program.machine),
        dial=dialer,
        shared=(tokens, dialer),
        register="background",
        # Managers look for forwarders by the name alone; a registry may refuse the service to a forwarder.
        register_service=False,
        unregister=False,
        drain=program.drain_time,
    )
    await parts.serve_registered(program, forwarder)


async def _check_machine() -> None:
    """FailedPrecondition where interfaces cannot be made: a forwarder that fails every request helps nobody."""
    from nsm_sdk.errors import FailedPrecondition
    from nsm_sdk.netlink import probe

    found = await probe()
    if not found.mechanisms:
        missing = next(found[name] for name in ("namespaces", "veth") if not found.works(name))
        raise FailedPrecondition(
            f"this forwarder cannot make interfaces: {missing.name}: {missing.reason}",
            hint="run it as root, or with NSM_DATAPATH=simulated; `nsm doctor` tells more",
        )
