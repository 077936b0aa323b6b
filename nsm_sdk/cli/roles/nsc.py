# SPDX-License-Identifier: Apache-2.0
"""`nsm run nsc`.

Does:  settings of the client, and its life as a process.
Place: a program of its own.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nsm_sdk.api import ServiceUrl, with_client_info
from nsm_sdk.cli import codecs
from nsm_sdk.cli.roles.common import (
    CONNECT_MEANING,
    DATAPATH,
    DATAPATH_MEANING,
    MANAGER,
    NETNS_MEANING,
    NO_LABELS,
    Common,
)
from nsm_sdk.cli.settings import setting

if TYPE_CHECKING:
    from nsm_sdk.api import Request
    from nsm_sdk.cli.program import Program
    from nsm_sdk.client import Client
    from nsm_sdk.core import Role, Service
    from nsm_sdk.errors import NsmError
    from nsm_sdk.heal import Happenings, Heal, Journals, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Common):
    """What a client can be told."""

    name: str = setting(
        codecs.NAME, "nsc", "name of this program in the mesh; clients of one manager need distinct ones"
    )
    connect_to: str = setting(codecs.ADDRESS, MANAGER, CONNECT_MEANING)
    network_services: tuple[str, ...] = setting(
        codecs.SERVICES, None, "the services to connect to, one after the other in this order"
    )
    labels: Mapping[str, str] = setting(codecs.LABELS, "", "labels of every request; a service URL's labels win")
    awareness_groups: tuple[tuple[ServiceUrl, ...], ...] = setting(
        codecs.GROUPS, "", "services of one group may share addresses with each other"
    )
    mechanism: str = setting(codecs.choice("kernel"), "kernel", "the mechanism of service URLs that name none")
    request_timeout: float = setting(codecs.POSITIVE, "15s", "the longest time for one try; tries never end")
    dial_timeout: float = setting(codecs.POSITIVE, "5s", "the longest time to wait for a connection to the manager")
    liveness_check_enabled: bool = setting(codecs.BOOLEAN, "true", "check the datapath, and heal when it is down")
    liveness_check_interval: float = setting(codecs.POSITIVE, "200ms", "time between two checks")
    liveness_check_timeout: float = setting(codecs.POSITIVE, "1s", "the longest time for one check")
    liveness_probe: str = setting(
        codecs.PROBE,
        "auto",
        "how it is checked; auto: icmp and link events with the kernel datapath, none with the simulated",
    )
    netns: str = setting(codecs.NETNS, "", NETNS_MEANING, shown="own")
    datapath: str = setting(DATAPATH, "kernel", DATAPATH_MEANING)

    def services(self) -> list[ServiceUrl]:
        """The services to connect to, in order."""
        return [
            ServiceUrl.parse(text if "://" in text else f"{self.mechanism}://{text}") for text in self.network_services
        ]

    @property
    def probe(self) -> str:
        """How the datapath is checked: none, icmp, arp, carrier or tcp:PORT."""
        if not self.liveness_check_enabled:
            return "none"
        if self.liveness_probe != "auto":
            return self.liveness_probe
        return "icmp" if self.datapath == "kernel" else "none"

    @property
    def chooses_probe(self) -> bool:
        """Whether the way to check was left to us."""
        return self.liveness_probe == "auto" and self.probe == "icmp"


def client(
    settings: Settings,
    machine: Mapping[str, str] = NO_LABELS,
    heal: Heal | None = None,
    failed: Callable[[Request, NsmError, float], None] | None = None,
) -> Client:
    """The client; `heal` watches and repairs connections, `failed` hears of tries that failed."""
    from nsm_sdk.cli.roles import parts
    from nsm_sdk.client import Client
    from nsm_sdk.elements import Retry
    from nsm_sdk.ipam import ExcludedPrefixes

    tokens = parts.tokens("nsc", settings)
    return Client(
        settings.connect_to,
        ExcludedPrefixes(_groups(settings, machine)),
        name=settings.name,
        timeout=settings.request_timeout,
        identity=tokens,
        namespace=settings.netns,
        labels=settings.labels,
        environment=machine,
        heal=heal or healing(settings),
        # The pauses, made longer or shorter at random, allow 20 tries a second at most.
        retry=Retry(per_try=settings.request_timeout, pause=0.067, longest=2.0, permanent=(), failed=failed),
        resume=True,
        drain=0.1,
        dial=parts.dialer(tokens, settings.dial_timeout),
        services=_residents(settings),
    )


def _residents(settings: Settings) -> list[Service]:
    """Whoever plumbs another namespace lives there: a second client of its name is to be refused."""
    if not settings.netns or settings.datapath != "kernel":
        return []
    from nsm_sdk.netlink import Resident, namespace_url

    return [Resident(namespace_url(settings.netns))]


def build(settings: Settings) -> Role:
    """The chains."""
    return client(settings).role


def healing(settings: Settings, journals: Journals | None = None, happenings: Happenings | None = None) -> Heal:
    """What watches and repairs connections."""
    from nsm_sdk.heal import Heal, Liveness

    return Heal(
        _auto() if settings.chooses_probe else _probe(settings.probe),
        liveness=Liveness(interval=settings.liveness_check_interval, timeout=settings.liveness_check_timeout),
        namespace=settings.netns,
        journals=journals,
        happenings=happenings,
    )


def _auto() -> Probe:
    """Pings, and the kernel's own word for links that go down: that takes no time-out."""
    from nsm_sdk.heal import All, Carrier, Icmp
    from nsm_sdk.netlink import SocketWatch, run_inside

    return All(Carrier(links=SocketWatch.open, inside=run_inside), Icmp(inside=run_inside))


def _probe(kind: str) -> Probe | None:
    from nsm_sdk.heal import Carrier, Icmp, Neighbour, Tcp
    from nsm_sdk.netlink import SocketWatch, run_inside

    match kind:
        case "none":
            return None
        case "icmp":
            return Icmp(inside=run_inside)
        case "arp":
            return Neighbour(inside=run_inside)
        case "carrier":
            return Carrier(links=SocketWatch.open, inside=run_inside)
        case _:
            return Tcp(int(kind.removeprefix("tcp:")), inside=run_inside)


def _groups(settings: Settings, machine: Mapping[str, str]) -> list[list[ServiceUrl]]:
    """Awareness groups, with the labels that requests for their services will have."""
    return [
        [replace(url, labels=with_client_info({**settings.labels, **url.labels}, machine)) for url in group]
        for group in settings.awareness_groups
    ]


async def serve(program: Program, settings: Settings) -> None:
    """Run the client until it is told to leave."""
    from nsm_sdk.cli.connecting import connect_all

    await connect_all(program, settings)
