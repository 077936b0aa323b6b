# SPDX-License-Identifier: Apache-2.0
"""`nsm run ROLE`: from the command line to a running role.

Does:  reads flags, environment and file into settings; `--help` and `--check` stop there.
Place: called by `nsm` before anything that costs start-up time is imported.
State: none.
"""

from __future__ import annotations

import argparse
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
"""Exit status for bad settings and bad usage."""


def parser(role: str | None = None) -> argparse.ArgumentParser:
    """The command line of `nsm run`, or of one role."""
    made = argparse.ArgumentParser(
        prog=f"nsm run {role or 'ROLE'}",
        description=f"Run one role of the mesh as a process: {roles.SUMMARIES[role]}."
        if role
        else "Run one role of the mesh as a process.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog=_epilog(role),
    )
    if role is None:
        made.add_argument("role", metavar="ROLE", help=", ".join(roles.SUMMARIES))
        return made
    made.add_argument("--env-file", action="append", default=[], metavar="FILE", help="read settings from FILE")
    made.add_argument(
        "--set", action="append", default=[], metavar="NSM_NAME=VALUE", help="a setting; wins over environment and file"
    )
    made.add_argument("--check", action="store_true", help="check the settings and leave")
    return made


def _epilog(role: str | None) -> str:
    if role is None:
        width = max(map(len, roles.SUMMARIES))
        lines = [f"  {name:{width}}  {summary}" for name, summary in roles.SUMMARIES.items()]
        return "roles:\n" + "\n".join(lines) + "\n\n`nsm run ROLE --help` lists the settings of a role."
    return (
        "settings, from --set, from the environment, or from a file (the first of these wins):\n"
        + help_text(roles.module(role).Settings)
        + "\n  NODE_NAME, POD_NAME, CLUSTER_NAME\n      Become labels of requests where those are not set."
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


def _role_at(arguments: Sequence[str]) -> int | None:
    """Where the role stands: the first word that is neither an option nor an option's value."""
    for at, word in enumerate(arguments):
        if not word.startswith("-") and (at == 0 or arguments[at - 1] not in ("--set", "--env-file")):
            return at
    return None


def main(arguments: Sequence[str]) -> int:
    """Run `nsm run` with these arguments; answers the exit status, unless the process ends with the role."""
    rest = list(arguments)
    at = _role_at(rest)
    if at is None or rest[at] not in roles.SUMMARIES:
        if at is None or rest[0] in ("-h", "--help"):
            parser().parse_args(rest[:1])
        print(f"nsm run: unknown role {rest[at or 0]!r}: expected {', '.join(roles.SUMMARIES)}", file=sys.stderr)
        return USAGE
    role = rest.pop(at)
    options = parser(role).parse_args(rest)
    try:
        settings, machine, warnings = settings_of(role, options.set, options.env_file, os.environ)
    except BadSettings as bad:
        print(f"nsm run {role}: {bad}", file=sys.stderr)
        return USAGE
    if options.check:
        for warning in warnings:
            print(f"nsm run {role}: warning: {warning}", file=sys.stderr)
        return 0
    from nsm_sdk.cli import program

    serve = roles.module(role).serve
    status = program.run(role, settings, machine, lambda running: serve(running, settings), warnings)
    program.leave(status)
    return status
