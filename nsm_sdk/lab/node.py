# SPDX-License-Identifier: Apache-2.0
"""A node: a manager, a forwarder, and the pods, clients and endpoints that run on it.

Does:  builds each of them, in this process or as a program, and starts it; all are ended by the cluster.
Place: made by `Cluster.node`.
State: the hops and pods of the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import anyio

from nsm_sdk import chains
from nsm_sdk.api import NetworkService
from nsm_sdk.client import Client
from nsm_sdk.core import Chain, Element, Next, Role
from nsm_sdk.endpoint import Endpoint, OfferedService, RegisteredRole
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.ipam import ipam_chain
from nsm_sdk.lab.hop import Hop, ServedHop
from nsm_sdk.lab.mode import Transport
from nsm_sdk.lab.pod import Pod
from nsm_sdk.lab.program import ProgramHop
from nsm_sdk.lab.workload import LabClient, LabEndpoint
from nsm_sdk.mechanisms import KernelClient

if TYPE_CHECKING:
    from nsm_sdk.lab.cluster import Cluster

PREFIX = "172.16.0.0/24"
SERVICE = "icmp-responder"


class Node:
    """One node of a cluster; `manager` and `forwarder` are its hops."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.manager: Hop = self._manager(f"nsmgr-{name}")
        self.forwarder: Hop = self._forwarder(f"forwarder-{name}")

    # -- the hops of the node ---------------------------------------------------------------------------------------

    def _manager(self, name: str) -> Hop:
        cluster = self.cluster
        if cluster.mode.programs:
            settings = {"REGISTRY_URL": cluster.registry.url, "STATE_DIR": cluster.state_of(name)}
            return cluster.program("nsmgr", name, settings)

        def build() -> Role:
            tokens, dial = cluster.identity("nsmgr", name)
            return chains.nsmgr(
                name,
                url=lambda: hop.url,
                dial=dial,
                tokens=tokens,
                registry=cluster.registry.url,
                longest=cluster.registration_life,
                secret=cluster.secret(name),
                services=[tokens, dial],
            )

        hop = cluster.served("nsmgr", name, cluster.address(name), build)
        return hop

    def _forwarder(self, name: str) -> Hop:
        cluster = self.cluster
        state = cluster.folder / f"state-{name}"
        if cluster.mode.programs:
            settings = {
                "CONNECT_TO": self.manager.url,
                "STATE_DIR": str(state),
                "DATAPATH": cluster.mode.ground.value,
            }
            if cluster.orphan_timeout is not None:
                settings["ORPHAN_TIMEOUT"] = f"{cluster.orphan_timeout:g}s"
            return cluster.program("forwarder", name, settings)

        def build() -> RegisteredRole:
            tokens, dial = cluster.identity("forwarder", name)
            role = chains.forwarder(
                name,
                manager=self.manager.url,
                dial=dial,
                tokens=tokens,
                datapath=cluster.field.datapath(name, state),
                secret=cluster.secret(name),
                services=[tokens, dial],
            )
            return RegisteredRole(
                role,
                services=[OfferedService("forwarder", labels={"p2p": "true"})],
                registry=self.manager.url,
                listen=hop.url,
                dial=dial,
                shared=[tokens, dial],
                register="background",
                register_service=False,
            )

        hop = cluster.served("forwarder", name, cluster.address(name), build)
        return hop

    async def start(self) -> None:
        """Start manager and forwarder, and wait until the forwarder is registered."""
        forwarder = self.forwarder
        if isinstance(forwarder, ProgramHop) and self.cluster.mode.transport is Transport.UNIX:
            # Programs may be started in any order; their addresses are known.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.manager.start)
                tasks.start_soon(forwarder.start)
        else:
            await self.manager.start()
            if isinstance(forwarder, ProgramHop):
                forwarder.settings["CONNECT_TO"] = self.manager.url
            await forwarder.start()
        await registered(self.forwarder)

    # -- what runs on it --------------------------------------------------------------------------------------------

    async def pod(self, name: str) -> Pod:
        """A new pod."""
        return await self.cluster.make_pod(name)

    async def client(
        self, name: str, *elements: Element, pod: Pod | None = None, kernel: bool = True, namesake: bool = False
    ) -> LabClient:
        """A client with a pod of its own, unless one is given. It runs in this process in every mode, so that its
        calls can be made one by one; `elements` are its own, above the one that asks for a kernel interface in the pod
        (without `kernel` there is none). `namesake`: another client of that name may be running."""
        cluster = self.cluster
        inside = pod or await self.pod(name)

        def build() -> Client:
            tokens, dial = cluster.identity("nsc", name)
            return Client(
                self.manager.url,
                *elements,
                *([KernelClient(namespace=inside.url)] if kernel else []),
                name=name,
                identity=tokens,
                interface=False,
                heal=False,
                retry=False,
                close_timeout=0.0,
                dial=dial,
                services=[cluster.field.resident(inside.url)],
            )

        hop = cluster.served("nsc", name, "", build, namesake=namesake)
        await hop.start()
        return LabClient(hop, inside)

    async def endpoint(
        self,
        name: str,
        *elements: Element | Chain[Next],
        service: str = SERVICE,
        prefix: str | Sequence[str] = PREFIX,
        labels: Mapping[str, str] | None = None,
        payload: str = "IP",
        matches: NetworkService | None = None,
        pod: Pod | None = None,
        wait: bool = True,
    ) -> LabEndpoint:
        """An endpoint of `service` that gives addresses of `prefix` (several: one of each), with a pod of its own
        unless one is given. `matches`: the service as it is registered, default without rules. `elements` stand above
        addresses and mechanisms; with them it runs in this process in every mode. `wait`: until it is registered."""
        cluster = self.cluster
        inside = pod or await self.pod(name)
        prefixes = (prefix,) if isinstance(prefix, str) else tuple(prefix)
        hop: Hop
        if cluster.mode.programs and not elements and matches is None:
            settings = {
                "CONNECT_TO": self.manager.url,
                "SERVICE_NAMES": service,
                "LABELS": ",".join(f"{key}:{value}" for key, value in (labels or {}).items()),
                "PAYLOAD": payload,
                "CIDR_PREFIX": ",".join(f"[{one}]" for one in prefixes),
                "NETNS": inside.url.removeprefix("file://"),
                "DATAPATH": cluster.mode.ground.value,
                "UNREGISTER_ITSELF": "true",
                "STATE_DIR": cluster.state_of(name),
            }
            hop = cluster.program("nse", name, settings)
        else:
            described = OfferedService(
                service,
                labels=labels,
                payload=payload if matches is None else matches.payload,
                matches=() if matches is None else matches.matches,
            )
            hop = self._served_endpoint(name, elements, described, inside, prefixes)
        await hop.start()
        if wait:
            await registered(hop)
        return LabEndpoint(hop, inside, prefixes)

    def _served_endpoint(
        self,
        name: str,
        elements: Sequence[Element | Chain[Next]],
        service: OfferedService,
        pod: Pod,
        prefixes: Sequence[str],
    ) -> Hop:
        cluster = self.cluster

        def build() -> Endpoint:
            tokens, dial = cluster.identity("nse", name)
            return Endpoint(
                name,
                *elements,
                ipam_chain([[one] for one in prefixes]),
                service=service,
                registry=self.manager.url,
                listen=hop.url,
                identity=tokens,
                secret=cluster.secret(name),
                namespace=pod.url,
                register="background",
                dial=dial,
            )

        hop = cluster.served("nse", name, cluster.address(name), build)
        return hop

    async def program(self, role: str, name: str, **settings: str) -> ProgramHop:
        """Any program of ours on this node, started: `await node.program("nsc", "nsc-1", network_services=...)`.

        Where it does not say, it gets this node's manager.
        """
        if not self.cluster.mode.programs:
            raise ProgrammingError("programs need a mode with programs", hint="use lab.PROGRAMS")
        given = {key.upper(): value for key, value in settings.items()}
        hop = self.cluster.program(role, name, {"CONNECT_TO": self.manager.url, **given}, listens=role != "nsc")
        await hop.start()
        return hop

    def __repr__(self) -> str:
        return f"<Node {self.name} of {self.cluster.name}>"


async def registered(hop: Hop) -> None:
    """Wait until the hop has registered for the first time."""
    if isinstance(hop, ServedHop):
        await hop.registered()
    elif isinstance(hop, ProgramHop):
        await hop.event("registered", since=0)
