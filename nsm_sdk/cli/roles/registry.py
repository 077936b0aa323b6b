# SPDX-License-Identifier: Apache-2.0
"""`nsm run registry`.

Does:  settings of the registry, and its life as a process.
Place: a program of its own.
State: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsm_sdk.api import Target
from nsm_sdk.cli import codecs
from nsm_sdk.cli.roles.common import LISTEN_MEANING, NO_LABELS, Common
from nsm_sdk.cli.settings import setting

if TYPE_CHECKING:
    from nsm_sdk.cli.program import Program
    from nsm_sdk.core import Role


DIAL_TIMEOUT = 5.0
"""Seconds to wait for a connection to the proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Common):
    """What a registry can be told."""

    name: str = setting(codecs.NAME, "registry", "name of this program in the mesh")
    listen_on: tuple[Target, ...] = setting(codecs.LISTEN, "unix:///listen.on.socket", LISTEN_MEANING)
    expire_period: float = setting(
        codecs.POSITIVE,
        "1m",
        "the longest life an endpoint gets between refreshes; less if it asks for less or its token ends sooner",
    )
    proxy_registry_url: str | None = setting(
        codecs.optional(codecs.ADDRESS), "", "address of the registry proxy that knows other domains"
    )
    store: str = setting(codecs.choice("memory"), "memory", "where entries are kept")


def build(settings: Settings, machine: Mapping[str, str] = NO_LABELS) -> Role:
    """The chains."""
    from nsm_sdk.chains import registry
    from nsm_sdk.cli.roles import parts

    tokens = parts.tokens("registry", settings)
    dialer = parts.dialer(tokens, DIAL_TIMEOUT)
    return registry(
        settings.name,
        tokens=tokens,
        longest=settings.expire_period,
        dial=dialer,
        proxy=settings.proxy_registry_url or "",
        services=(tokens, dialer),
    )


async def serve(program: Program, settings: Settings) -> None:
    """Run the registry until it is told to leave."""
    from nsm_sdk.cli.roles import parts

    await parts.serve_until_stopped(program, parts.reported(build(settings), program), settings.listen_on)
