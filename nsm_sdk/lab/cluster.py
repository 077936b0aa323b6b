# SPDX-License-Identifier: Apache-2.0
"""A whole mesh on this machine.

Does:  `Cluster` starts a registry, and nodes with managers and forwarders when asked for them; whatever was made, it
       ends in the reverse order, also after a failure: programs, roles, namespaces, sockets, records.
Place: examples, the demo, tests of a whole mesh; everybody who wants to see the thing work.
State: every hop and pod that was made.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from nsm_sdk import chains
from nsm_sdk.api import Target
from nsm_sdk.api.addresses import MAX_SOCKET_PATH
from nsm_sdk.client import Client
from nsm_sdk.core import Clock, Observer, Role, dice
from nsm_sdk.endpoint import RegisteredRole
from nsm_sdk.errors import AlreadyExists, NsmError
from nsm_sdk.lab.counts import Counts, ask, count
from nsm_sdk.lab.ground import Field
from nsm_sdk.lab.hop import Hop, ServedHop
from nsm_sdk.lab.memory import MemoryField
from nsm_sdk.lab.mode import INPROC, Ground, Mode, Transport
from nsm_sdk.lab.namespaces import KernelField
from nsm_sdk.lab.node import Node
from nsm_sdk.lab.pod import Pod
from nsm_sdk.lab.program import ProgramHop
from nsm_sdk.lab.simulated import SimulatedField
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.testing import current_clock
from nsm_sdk.transport import Dialer
from nsm_sdk.transport.sockets import short_folder

logger = logging.getLogger("nsm_sdk.lab")

TOKEN_LIFE = 600.0
REGISTRATION_LIFE = 60.0


class Cluster:
    """A registry, and nodes. `async with Cluster(...) as cluster:`

    `name`: part of the names of namespaces and sockets, which are unique to the run in any case. `token_life` and
    `registration_life` in seconds; `orphan_timeout`: seconds after which forwarders that were started again remove
    what nobody claims, None: the usual time for programs, never for others. `observe` sees every chain of this
    process; `settings` (names without `NSM_`) are those of every program. `keeps_secrets`: hops that are started again
    derive the same connection ids; without, they are like those of other makers, or in containers without a volume.
    """

    def __init__(
        self,
        mode: Mode = INPROC,
        *,
        name: str = "nsm",
        token_life: float = TOKEN_LIFE,
        registration_life: float = REGISTRATION_LIFE,
        orphan_timeout: float | None = None,
        dial_timeout: float | None = None,
        observe: Observer | None = None,
        settings: Mapping[str, str] | None = None,
        keeps_secrets: bool = True,
    ) -> None:
        self.mode = mode
        self.name = f"{name}-{dice().getrandbits(24):06x}"
        self.token_life = token_life
        self.registration_life = registration_life
        self.orphan_timeout = orphan_timeout
        self.dial_timeout = dial_timeout
        self.hops: dict[str, Hop] = {}
        """Everything that runs or ran, by name, in the order in which it was made."""
        self.pods: dict[str, Pod] = {}
        self.nodes: dict[str, Node] = {}
        self.field: Field = self._field()
        self._observe = observe
        self._secrets: dict[str, str] | None = {} if keeps_secrets else None
        self._settings = {key.upper(): value for key, value in (settings or {}).items()}
        self._folder: Path | None = None
        self._registry: Hop | None = None

    def _field(self) -> Field:
        match self.mode.ground:
            case Ground.SIMULATED:
                return SimulatedField(self._told if self.mode.programs else None)
            case Ground.MEMORY:
                return MemoryField(orphan_timeout=self.orphan_timeout)
            case Ground.KERNEL:
                return KernelField(orphan_timeout=self.orphan_timeout)

    async def _told(self) -> list[Mapping[str, Any]]:
        """The connections of forwarders that are programs."""
        return [
            line
            for hop in self.hops.values()
            if isinstance(hop, ProgramHop) and hop.role == "forwarder" and hop.alive
            for line in await ask(hop.settings["ADMIN_SOCKET"], "connections")
        ]

    # -- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self) -> None:
        """Start the registry; for those who do not write `async with`. `aclose` ends it all."""
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=short_folder()))
        try:
            self._registry = self._make_registry("registry")
            await self._registry.start()
        except BaseException:
            await self.aclose()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End everything, last first; what cannot be ended gracefully is killed. Nothing stays on the machine.
        May be repeated."""
        with anyio.CancelScope(shield=True):
            for hop in reversed(self.hops.values()):
                try:
                    await hop.stop()
                except Exception:
                    logger.exception("%r could not be stopped", hop)
                    await hop.kill()
            try:
                await self.field.aclose()
            except NsmError:
                logger.exception("a pod of %s could not be removed", self.name)
        self.pods.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -- what scenarios use -----------------------------------------------------------------------------------------

    @property
    def registry(self) -> Hop:
        """The registry of the cluster."""
        assert self._registry is not None, "enter the cluster first"
        return self._registry

    @property
    def folder(self) -> Path:
        """Sockets, records and logs of the run; removed at the end."""
        assert self._folder is not None, "enter the cluster first"
        return self._folder

    async def node(self, name: str = "node-1") -> Node:
        """A new node, with its manager and forwarder running and registered."""
        if name in self.nodes:
            raise AlreadyExists(f"there is a node {name!r} already", hint="choose another name")
        node = self.nodes[name] = Node(self, name)
        await node.start()
        return node

    async def make_pod(self, name: str) -> Pod:
        """A new pod called `name`."""
        if name in self.pods:
            raise AlreadyExists(f"there is a pod {name!r} already", hint="choose another name")
        pod = self.pods[name] = Pod(name, await self.field.make(f"{self.name}-{name}"), self.field)
        return pod

    async def counts(self) -> Counts:
        """What the mesh holds now, wherever it is; a mesh in memory holds no descriptors."""
        return await count(self.hops.values(), self.pods.values(), descriptors=not self.mode.virtual)

    async def kill(self, name: str) -> None:
        """Crash the hop of that name."""
        await self.hops[name].kill()

    async def restart(self, name: str) -> None:
        """Start the hop of that name again, with the same address."""
        await self.hops[name].restart()

    # -- what nodes use ---------------------------------------------------------------------------------------------

    def identity(self, role: str, name: str) -> tuple[TokenGenerator, Dialer]:
        """Tokens and ways out for a hop of this process."""
        tokens = TokenGenerator(Insecure(role, name), max_lifetime=self.token_life)
        return tokens, Dialer(tokens) if self.dial_timeout is None else Dialer(tokens, dial_timeout=self.dial_timeout)

    def secret(self, name: str) -> str:
        """From what a hop of this process derives connection ids; empty: from something else after each start."""
        return "" if self._secrets is None else self._secrets.setdefault(name, secrets.token_hex(32))

    def state_of(self, name: str) -> str:
        """The folder of what a program keeps for its next start; without secrets one that cannot be made."""
        return f"/dev/null/{name}" if self._secrets is None else str(self.folder / f"state-{name}")

    def _socket(self, name: str, kind: str) -> str:
        path = str(self.folder / f"{name}.{kind}")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            path = str(self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.{kind}")
        return path

    def address(self, name: str) -> str:
        """Where a hop of that name listens when it starts for the first time."""
        match self.mode.transport:
            case Transport.INPROC:
                return f"inproc://{self.name}-{name}"
            case Transport.UNIX:
                return Target("unix", self._socket(name, "sock")).url
            case Transport.TCP:
                return "tcp://127.0.0.1:0"

    def served(
        self,
        role: str,
        name: str,
        url: str,
        build: Callable[[], Role | RegisteredRole | Client],
        *,
        namesake: bool = False,
    ) -> ServedHop:
        """A hop of this process; not started. `namesake`: there may be another of that name, which `hops` keeps."""
        hop = ServedHop(role, name, url, build, clock=_clock, observe=self._observe)
        if namesake and name in self.hops:
            number = next(one for one in itertools.count(2) if f"{name}#{one}" not in self.hops)
            self.hops[f"{name}#{number}"] = hop
        else:
            self._add(hop)
        return hop

    def program(self, role: str, name: str, settings: Mapping[str, str], *, listens: bool = True) -> ProgramHop:
        """A hop that is a program; not started."""
        own = {
            "ADMIN_SOCKET": self._socket(name, "admin"),
            "MAX_TOKEN_LIFETIME": f"{self.token_life:g}s",
            **self._settings,
            **settings,
        }
        hop = ProgramHop(role, name, self.address(name) if listens else "", own, self.folder)
        self._add(hop)
        return hop

    def _add(self, hop: Hop) -> None:
        if hop.name in self.hops and self.hops[hop.name].alive:
            raise AlreadyExists(f"there is a hop {hop.name!r} already", hint="choose another name")
        self.hops.pop(hop.name, None)
        self.hops[hop.name] = hop

    def _make_registry(self, name: str) -> Hop:
        if self.mode.programs:
            return self.program("registry", name, {"EXPIRE_PERIOD": f"{self.registration_life:g}s"})

        def build() -> Role:
            tokens, dial = self.identity("registry", name)
            return chains.registry(name, tokens=tokens, longest=self.registration_life, services=[tokens, dial])

        return self.served("registry", name, self.address(name), build)

    def __repr__(self) -> str:
        return f"<Cluster {self.name}: {self.mode}, {len(self.nodes)} nodes>"


def _clock() -> Clock:
    return current_clock()
