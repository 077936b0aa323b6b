# SPDX-License-Identifier: Apache-2.0
"""`nsm run nsmgr`.

Does:  settings of the manager, and its life as a process.
Place: a program of its own, one per node.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsm_sdk.api import Target
from nsm_sdk.cli import codecs
from nsm_sdk.cli.roles.common import LISTEN_MEANING, MANAGER, NO_LABELS, Remembering
from nsm_sdk.cli.settings import setting

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program
    from nsm_sdk.core import Role, Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Remembering):
    """What a manager can be told."""

    name: str = setting(codecs.NAME, "nsmgr", "name of this program in the mesh")
    listen_on: tuple[Target, ...] = setting(codecs.LISTEN, MANAGER, LISTEN_MEANING)
    registry_url: str | None = setting(
        codecs.optional(codecs.ADDRESS),
        "tcp://localhost:5001",
        "address of the registry; explicitly empty: a registry in this process, in memory",
    )
    forwarder_network_service_name: str = setting(
        codecs.NAME, "forwarder", "the network service under which forwarders register"
    )
    dial_timeout: float = setting(codecs.POSITIVE, "750ms", "the longest time to wait for a connection to a peer")


def build(
    settings: Settings,
    machine: Mapping[str, str] = NO_LABELS,
    url: Callable[[], str] | None = None,
    secret: str = "",
) -> Role:
    """The chains; `url` returns where other nodes reach this manager. `secret` makes ids that stay the same over
    restarts."""
    from nsm_sdk.chains import nsmgr
    from nsm_sdk.cli.roles import parts

    tokens = parts.tokens("nsmgr", settings)
    dialer = parts.dialer(tokens, settings.dial_timeout)
    return nsmgr(
        settings.name,
        url=url or settings.listen_on[0].url,
        dial=dialer,
        tokens=tokens,
        registry=settings.registry_url or "",
        forwarder_service=settings.forwarder_network_service_name,
        environment=machine,
        secret=secret,
        services=(tokens, dialer),
    )


async def serve(program: Program, settings: Settings) -> None:
    """Run the manager until it is told to leave."""
    from nsm_sdk.cli.roles import parts
    from nsm_sdk.endpoint import public_url

    where = [target.url for target in settings.listen_on]

    def begin(running: Running) -> None:
        where[:] = running.urls

    secret = parts.kept_secret(settings.state)
    role = parts.reported(build(settings, program.machine, lambda: public_url(where), secret), program)
    await parts.serve_until_stopped(program, role, settings.listen_on, begin=begin)
