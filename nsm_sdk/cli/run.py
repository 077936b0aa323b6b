# SPDX-License-Identifier: Apache-2.0
"""`nsm run ROLE`: from settings to a running role.

Does:  reads flags, environment and file into settings; `--help` and `--check` stop there.
Place: behind `nsm_sdk.cli.app`.
State: none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nsm_sdk.cli import roles
from nsm_sdk.cli.roles.common import Common
from nsm_sdk.cli.settings import (
    PREFIX,
    BadSettings,
    declared,
    help_text,
    labels_of_machine,
    load,
    read_env_file,
    read_flags,
)

USAGE = 2
"""Exit status for bad settings."""


def settings_text(role: str) -> str:
    """The settings of a role: name, default, meaning."""
    return (
        "\nSettings, from --set, from the environment, or from a file (the first of these wins):\n"
        + help_text(roles.module(role).Settings)
        + "\n  NODE_NAME, POD_NAME, CLUSTER_NAME\n      Become labels of requests where those are not set.\n"
    )


def settings_of(
    role: str, flags: Sequence[str], files: Sequence[str], environment: Mapping[str, str]
) -> tuple[Common, dict[str, str], list[str]]:
    """Settings, NODE_NAME and the like, and warnings. BadSettings for what cannot be used."""
    kind: Any = roles.module(role).Settings
    given = read_flags(flags)
    file: dict[str, str] = {}
    for name in files:
        file.update(read_env_file(name))
    warnings = [
        f"{name} in the file is no setting: full names begin with {PREFIX}"
        for name in sorted(file)
        if PREFIX[:-1] in name.upper() and not name.startswith(PREFIX)
    ]
    known = [one.name for other in roles.SUMMARIES for one in declared(roles.module(other).Settings)]
    settings, more = load(kind, flags=given, environment=environment, file=file, known=known)
    settings.check()
    return settings, labels_of_machine({**file, **environment, **given}), [*warnings, *more]


def run_role(role: str, flags: Sequence[str], files: Sequence[str], *, check: bool = False) -> int:
    """Run a role with `--set` of `flags` and `--env-file` of `files`; returns the exit status, unless the process ends
    with the role. `check`: only check the settings."""
    try:
        settings, machine, warnings = settings_of(role, flags, files, os.environ)
    except BadSettings as bad:
        print(f"nsm run {role}: {bad}", file=sys.stderr)
        return USAGE
    if check:
        for warning in warnings:
            print(f"nsm run {role}: warning: {warning}", file=sys.stderr)
        return 0
    from nsm_sdk.cli import program

    serve = roles.module(role).serve
    status = program.run(role, settings, machine, lambda running: serve(running, settings), warnings)
    program.leave(status)
    return status
