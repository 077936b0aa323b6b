# SPDX-License-Identifier: Apache-2.0
"""The roles that `nsm run` knows, each in a module of its own.

Does:  names the roles; `module` imports one when it is needed. A role's module has `Settings`, and `serve`, which runs
       the role until the program is told to leave.
Place: below `nsm run`.
State: none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from nsm_sdk.cli.roles.common import Common

SUMMARIES = {
    "registry": "keeps the network services and endpoints of a mesh",
    "nsmgr": "the manager of a node: clients, endpoints and forwarders call it",
    "forwarder": "joins clients and endpoints, with interfaces or, simulated, without",
    "nse": "an endpoint: gives addresses to whoever asks for its services",
    "nsc": "a client: connects to network services and keeps the connections alive",
}


class RoleModule(Protocol):
    """What a role's module has."""

    Settings: type[Common]

    def build(self, settings: Any) -> Any:
        """The role as it is served, for looking at."""

    async def serve(self, program: Any, settings: Any) -> None:
        """Run until `program.stopped()`."""


def module(role: str) -> RoleModule:
    """The module of a role; KeyError for one that nobody knows."""
    if role not in SUMMARIES:
        raise KeyError(role)
    return cast(RoleModule, import_module(f"nsm_sdk.cli.roles.{role}"))
