# SPDX-License-Identifier: Apache-2.0
"""`nsm chain show`.

Does:  builds the chains of a role from the settings of this environment, and prints them as trees or as flowcharts.
Place: a command.
State: none.
"""

from __future__ import annotations

import os
import sys

from nsm_sdk.cli import roles
from nsm_sdk.cli.settings import PREFIX, BadSettings, declared, load

STAND_INS = {"NSM_NETWORK_SERVICES": "kernel://my-service/nsm-1"}
"""For settings that a running program must have and a picture need not."""


def chains(role: str, *, mermaid: bool = False) -> int:
    """Print the chains of `role`; answers the exit status."""
    if role not in roles.SUMMARIES:
        print(f"nsm chain show: unknown role {role!r}: expected {', '.join(roles.SUMMARIES)}", file=sys.stderr)
        return 2
    module = roles.module(role)
    names = {one.name for one in declared(module.Settings)}
    environment = {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and name in names}
    try:
        settings, _ = load(module.Settings, environment=environment, file=STAND_INS, known=STAND_INS)
    except BadSettings as bad:
        print(f"nsm chain show {role}: {bad}", file=sys.stderr)
        return 2
    built = module.build(settings)
    print("\n\n".join(chain.mermaid() if mermaid else chain.tree() for chain in built.chains))
    return 0
